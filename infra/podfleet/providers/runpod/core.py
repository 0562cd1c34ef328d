"""Rent, read, compare and end one pod: the plain class under the dynamic resource `pod.Pod`.

A killed engine must not leave a second pod behind, so nothing is rented before the name was looked for, nothing is
rented twice after an unclear answer, and nothing is called gone that was not missing from two complete lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

import structlog

from podfleet.errors import (
    ApiUnavailable,
    CreateFailed,
    NoBalance,
    NoCapacity,
    OtherFleetFound,
    ProviderError,
    RateLimited,
    RequestRejected,
)
from podfleet.providers.runpod.census import Census
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.ending import Ending, Watch
from podfleet.providers.runpod.wire import (
    ENDED,
    EXPIRES_VARIABLE,
    SLOT_VARIABLE,
    SPEC_HASH_VARIABLE,
    UID_VARIABLE,
    PodRequest,
    PodView,
)

log = structlog.get_logger()
NEXT_CANDIDATE = frozenset({400, 403, 409})  # the next GPU, cloud or place may be accepted
IDENTITY = ("name", "uid", "specHash")


@dataclass(frozen=True, slots=True)
class RentSpec:
    """The pod that is wanted. The name carries the hash of uid and spec: another pod has another name."""

    name: str
    uid: str
    slot: str
    spec_hash: str
    image: str
    gpu_types: tuple[str, ...]
    cloud: str
    data_center_ids: tuple[str, ...]
    min_cuda_version: str
    disk_gb: int
    ports: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RentPolicy:
    """What comes from the configuration, not from the pod's inputs."""

    reconcile_s: float
    reconcile_pause_s: float
    max_runtime_s: float


class CreatesPods(Protocol):
    """The part of the client that is needed here."""

    def create_pod(self, request: PodRequest, *, before: Callable[[], None]) -> PodView: ...


@dataclass(slots=True)
class _Attempt:
    """What the candidates have said so far."""

    refusals: list[ProviderError] = field(default_factory=list)
    unclear: ApiUnavailable | None = None


class PodCore:
    """Every verb is idempotent. `create` raises only where no pod of this name exists, else CreateFailed."""

    def __init__(
        self, client: CreatesPods, census: Census, ending: Ending, engine: Watch, clock: Clock, policy: RentPolicy
    ) -> None:
        self._client = client
        self._census = census
        self._ending = ending
        self._engine = engine
        self._clock = clock
        self._policy = policy
        self._no_balance = ""  # who cannot pay for one pod cannot pay for the next one either

    def create(self, spec: RentSpec) -> PodView:
        """Adopt the live pod of this name, or rent one: one POST per candidate. Returns as soon as there is an id."""
        snapshot = self._census.recent()
        same = [pod for pod in snapshot.pods if self._matches(pod, spec) and not self._census.was_ended(pod.id)]
        if adopted := self._keep_oldest(same):
            log.info("pod.adopted", pod_id=adopted.id, name=spec.name)
            return adopted
        attempt = _Attempt()
        try:
            for request in candidates(spec, self._environment(spec)):
                if pod := self._try(request, spec, attempt):
                    return pod
        except ProviderError as error:
            return self._found_or_raise(spec, attempt, error)
        return self._found_or_raise(spec, attempt, _no_candidate(spec, attempt.refusals))

    def read(self, pod_id: str) -> PodView | None:
        """The pod as it is, whatever its status; None only where it is proven absent."""
        since_s = self._clock.monotonic_s()
        if pod := self._census.recent().find(pod_id):
            return pod
        if self._census.absent([pod_id], since_s=since_s):
            return None
        if pod := self._census.recent().find(pod_id):
            return pod
        raise ApiUnavailable(f"RunPod lists pod {pod_id} at one moment and not at the next: nothing can be said of it")

    def delete(self, pod_id: str, *, uid: str) -> None:
        """Drain, end, prove. A pod of somebody else under this id is left alone."""
        pod = self._census.recent().find(pod_id)
        if pod and pod.uid != uid:
            raise OtherFleetFound(f"pod {pod_id} ({pod.name}) does not carry uid {uid}: not touched", pods=[pod_id])
        self._ending.end([pod] if pod else [], ids=[] if pod else [pod_id], why="its resource is deleted")

    def _try(self, request: PodRequest, spec: RentSpec, attempt: _Attempt) -> PodView | None:
        if self._no_balance:
            raise NoBalance(self._no_balance)
        try:
            pod = self._client.create_pod(request, before=lambda: self._engine.require(f"renting {spec.name}"))
        except NoBalance as error:
            self._no_balance = str(error)
            raise
        except NoCapacity as error:
            log.info("pod.no_capacity", name=spec.name, candidate=str(request))
            attempt.refusals.append(error)
            return None
        except RequestRejected as error:
            if error.status not in NEXT_CANDIDATE:
                raise
            attempt.refusals.append(error)
            return None
        except ApiUnavailable as error:
            if not error.maybe_done:
                raise
            attempt.unclear = error
            return self._look_for(spec, error)
        log.info("pod.created", pod_id=pod.id, name=spec.name, candidate=str(request), usd_per_hr=pod.cost_usd_per_hr)
        return pod

    def _look_for(self, spec: RentSpec, error: ApiUnavailable) -> PodView | None:
        """After an unclear answer: has the POST made a pod? Looks for as long as the policy says.

        Raises the unclear answer where the last look failed too: nobody knows, so nothing else may be asked for.
        """
        log.warning("pod.create_unclear", name=spec.name, reason=str(error))
        end_s = self._clock.monotonic_s() + self._policy.reconcile_s
        while True:
            blind: ProviderError | None = None
            try:
                same = [pod for pod in self._census.now().pods if self._matches(pod, spec)]
            except (ApiUnavailable, RateLimited) as trouble:
                log.warning("pod.list_failed", name=spec.name, reason=str(trouble))
                same, blind = [], trouble
            if pod := self._keep_oldest([pod for pod in same if not self._census.was_ended(pod.id)]):
                log.info("pod.found_after_unclear_create", pod_id=pod.id, name=spec.name)
                return pod
            if self._clock.monotonic_s() >= end_s:
                if blind:
                    raise error from blind
                return None
            self._clock.sleep(self._policy.reconcile_pause_s)

    def _found_or_raise(self, spec: RentSpec, attempt: _Attempt, error: ProviderError) -> PodView:
        """Before raising: a plain refusal made no pod; after an unclear answer two lists must say so."""
        if attempt.unclear is None:
            raise error
        try:
            same = self._census.named(spec.name, spec.uid, since_s=self._clock.monotonic_s())
        except ProviderError as trouble:
            text = f"it is not known whether {spec.name} was rented ({attempt.unclear}; {trouble})"
            advice = "the next `up` adopts it by its name, `destroy` ends it"
            raise CreateFailed(f"{text}: {advice}", name=spec.name) from error
        if pod := self._keep_oldest([pod for pod in same if not self._census.was_ended(pod.id)]):
            return pod
        raise error

    def _keep_oldest(self, same: Sequence[PodView]) -> PodView | None:
        """Of several pods of one name the oldest live one stays; what is left over by a failed end, Sweep takes."""
        live = sorted((pod for pod in same if pod.live), key=lambda pod: (pod.created_at_s, pod.id))
        kept = live[0] if live else None
        surplus = [pod for pod in same if pod is not kept]
        try:
            self._ending.end(surplus, why="more than one pod of this name, or not alive")
        except ProviderError as error:
            log.warning("pod.surplus_left", pod_ids=[pod.id for pod in surplus], reason=str(error))
        return kept

    def _environment(self, spec: RentSpec) -> dict[str, str]:
        """The pod's own, and what it is known by; the end of its life is written at the POST."""
        end_s = self._clock.now_s() + self._policy.max_runtime_s
        expires = {EXPIRES_VARIABLE: f"{end_s:.0f}"} if self._policy.max_runtime_s else {}
        known_by = {UID_VARIABLE: spec.uid, SPEC_HASH_VARIABLE: spec.spec_hash, SLOT_VARIABLE: spec.slot}
        return {**spec.env, **known_by, **expires}

    @staticmethod
    def _matches(pod: PodView, spec: RentSpec) -> bool:
        return pod.name == spec.name and pod.uid == spec.uid and pod.spec_hash == spec.spec_hash


def candidates(spec: RentSpec, env: dict[str, str]) -> Iterator[PodRequest]:
    """GPU type × cloud × data centre, first choice first; no data centre named means any."""
    clouds = ("SECURE", "COMMUNITY") if spec.cloud == "ALL" else (spec.cloud,)
    for gpu, cloud, place in product(spec.gpu_types, clouds, spec.data_center_ids or (None,)):
        yield PodRequest(
            name=spec.name,
            image=spec.image,
            gpu=gpu,
            cloud=cloud,
            data_center_id=place,
            min_cuda_version=spec.min_cuda_version,
            disk_gb=spec.disk_gb,
            ports=spec.ports,
            env=env,
        )


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Properties that ask for another pod. Limits, keys, environment: none of them touches a running pod."""
    changed = [key for key in IDENTITY if olds.get(key) != news.get(key)]
    return [*changed, "status"] if (olds.get("status") or "ERROR") in ENDED else changed


def _no_candidate(spec: RentSpec, refusals: Sequence[ProviderError]) -> ProviderError:
    """One line for all refusals; a refusal that is not about capacity is the more telling one."""
    if not refusals:
        return NoCapacity(f"{spec.name}: no answer from any candidate that a pod was rented")
    other = [error for error in refusals if isinstance(error, RequestRejected)]
    last = other[-1] if other else refusals[-1]
    tried = (
        f"{spec.name}: none of {len(refusals)} candidates ({', '.join(spec.gpu_types)}; {spec.cloud}) could be rented"
    )
    if isinstance(last, RequestRejected):
        return RequestRejected(f"{tried}: {last}", status=last.status, request_id=last.request_id)
    return NoCapacity(f"{tried}: {last}")
