"""Rent, read, compare and end one pod: the plain class under the dynamic resource `pod.Pod`.

A killed engine must not leave a second pod behind, so nothing is rented before the name was looked for, nothing is
rented twice after an unclear answer, and nothing is called gone that was not missing from two complete lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from podfleet.errors import (
    ApiUnavailable,
    CreateFailed,
    Interrupted,
    NoBalance,
    NoCapacity,
    OtherFleetFound,
    PodfleetError,
    ProviderError,
    RateLimited,
    RequestRejected,
    SpendLimit,
)
from podfleet.placement import Avoid, Candidate, Wish, clouds_of
from podfleet.providers.runpod.catalogue import Shelf
from podfleet.providers.runpod.census import Census
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.ending import Ending, Watch
from podfleet.providers.runpod.renting import Means, Rented, RentPolicy, adopted_from, ranking
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.trail import Trail, final_word
from podfleet.providers.runpod.wire import (
    ENDED,
    EXPIRES_VARIABLE,
    SLOT_VARIABLE,
    SPEC_HASH_VARIABLE,
    UID_VARIABLE,
    PodRequest,
    PodView,
)
from podfleet.ready import driver_problem

log = structlog.get_logger()
NEXT_CANDIDATE = frozenset({400, 403, 409})  # the next GPU, cloud or place may be accepted
SLICE_S = 1.0  # a pause looks up so often
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
    registry_id: str = ""
    volume_id: str = ""
    volume_path: str = ""


class CreatesPods(Protocol):
    """The part of the client that is needed here."""

    def create_pod(self, request: PodRequest, *, before: Callable[[], None]) -> PodView: ...


class PodCore:
    """Every verb is idempotent. `rent` raises only where no pod of this name exists, else CreateFailed."""

    def __init__(
        self,
        client: CreatesPods,
        census: Census,
        ending: Ending,
        engine: Watch,
        clock: Clock,
        policy: RentPolicy,
        means: Means,
    ) -> None:
        self._client = client
        self._census = census
        self._ending = ending
        self._engine = engine
        self._clock = clock
        self._policy = policy
        self._means = means
        self._no_balance = ""  # who cannot pay for one pod cannot pay for the next one either

    def create(self, spec: RentSpec) -> PodView:
        """`rent`, for those who need not know from where."""
        return self.rent(spec).pod

    def rent(self, spec: RentSpec) -> Rented:
        """Adopt the live pod of this name, or rent one: the best candidate first, one POST each, in several rounds.

        Returns as soon as there is an id.
        """
        if adopted := self._find(spec):
            return adopted
        trail = Trail()
        try:
            if rented := self._rounds(spec, trail):
                return rented
            market = self._means.catalogue.market(spec.min_cuda_version)
            error: PodfleetError = final_word(spec.name, trail, self._wish(spec, trail), market)
        except (ProviderError, Interrupted) as trouble:
            error = trouble
        with STOPPING.finishing():
            return self._found_or_raise(spec, trail, error)

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

    # Looking for a candidate

    def _find(self, spec: RentSpec) -> Rented | None:
        """The live pod of this name, by a list of the last seconds."""
        snapshot = self._census.recent()
        same = [pod for pod in snapshot.pods if self._matches(pod, spec) and not self._census.was_ended(pod.id)]
        adopted = self._keep_oldest(same, spec)
        if adopted is None:
            return None
        log.info("pod.adopted", pod_id=adopted.id, name=spec.name)
        return adopted_from(adopted)

    def _rounds(self, spec: RentSpec, trail: Trail) -> Rented | None:
        """All candidates, and again after a pause where something may have changed by then.

        A pod that an unclear answer has left behind may have come to light in the pause.
        """
        for number in range(self._policy.rounds):
            if number:
                self._pause(spec, trail)
                if trail.unclear and (found := self._find(spec)):
                    return found
            trail.begin_round()
            if rented := self._round(spec, trail):
                return rented
            if trail.hopeless or not trail.may_change:
                break
        return None

    def _round(self, spec: RentSpec, trail: Trail) -> Rented | None:
        """Every candidate once, by a catalogue that is newer than the last round."""
        wish = self._wish(spec, trail)
        shelf = self._means.catalogue.recent(wish.clouds, wish.min_cuda_version, not_before_s=trail.round_ended_s)
        trail.blind = shelf.trouble
        tried: set[tuple[str, str, str | None]] = set()
        while not trail.hopeless:
            trail.ranking = ranking(self._wish(spec, trail), shelf)
            untried = (each for each in trail.ranking.candidates if each.key not in tried and trail.asks(each))
            candidate = next(untried, None)
            if candidate is None:
                break
            tried.add(candidate.key)
            if known := shelf.refusal(candidate.key):
                trail.refused(candidate, known)
            elif pod := self._ask(candidate, spec, shelf, trail):
                return Rented(pod, str(candidate), trail.rejected())
        trail.end_round(self._clock.monotonic_s())
        return None

    def _pause(self, spec: RentSpec, trail: Trail) -> None:
        """Between two rounds, give or take a half; ends at once where another create of the process cannot pay."""
        left_s = self._policy.round_wait_s * (0.5 + self._means.jitter())
        log.info("pod.waits_for_a_candidate", name=spec.name, rounds=trail.rounds, wait_s=round(left_s, 1))
        while left_s > 0:
            self._require_balance()
            self._engine.require(f"renting {spec.name}")
            self._clock.sleep(min(left_s, SLICE_S))
            left_s -= SLICE_S

    def _ask(self, candidate: Candidate, spec: RentSpec, shelf: Shelf, trail: Trail) -> PodView | None:
        """One POST, within the money that there is. None: the next candidate, please."""
        self._require_balance()
        try:
            self._means.spend.reserve(name=spec.name, uid=spec.uid, usd_per_hr=candidate.price_usd_per_hr)
        except SpendLimit as error:
            if error.key == "maxPods":  # a cheaper one is one pod, too
                raise
            trail.refused_by_guard(candidate, error)
            return None
        pod = self._post(candidate, spec, shelf, trail)
        return pod if pod and self._fits(pod, candidate, spec, trail) else None

    def _post(self, candidate: Candidate, spec: RentSpec, shelf: Shelf, trail: Trail) -> PodView | None:
        """The reservation is settled with what came of it, and stays while nobody knows."""
        request = pod_request(spec, candidate, self._environment(spec))
        settle = self._means.spend.settle
        try:
            pod = self._client.create_pod(request, before=lambda: self._engine.require(f"renting {spec.name}"))
        except ApiUnavailable as error:
            if not error.maybe_done:
                settle(spec.name, None)
                raise
            trail.unclear = error
            with STOPPING.finishing():
                found = self._look_for(spec, error)
            settle(spec.name, found.id if found else None)
            return found
        except PodfleetError as error:  # refused, or never sent
            settle(spec.name, None)
            self._next_or_raise(error, candidate, spec, shelf, trail)
            return None
        settle(spec.name, pod.id)
        shelf.note(candidate.key, None)
        log.info("pod.created", pod_id=pod.id, name=spec.name, candidate=str(candidate), usd_per_hr=pod.cost_usd_per_hr)
        return pod

    def _next_or_raise(
        self, error: PodfleetError, candidate: Candidate, spec: RentSpec, shelf: Shelf, trail: Trail
    ) -> None:
        """A refusal after which the next candidate may be asked is noted; any other one is raised."""
        if isinstance(error, NoBalance):
            self._no_balance = str(error)
        another = isinstance(error, RequestRejected) and error.status in NEXT_CANDIDATE
        if not isinstance(error, ProviderError) or not (another or isinstance(error, NoCapacity)):
            raise error
        log.info("pod.refused", name=spec.name, candidate=candidate.where, reason=str(error))
        if isinstance(error, NoCapacity):
            shelf.note(candidate.key, error)
        trail.refused(candidate, error)

    def _fits(self, pod: PodView, candidate: Candidate, spec: RentSpec, trail: Trail) -> bool:
        """A host whose driver is too old is left at once: its pod would be charged for and never work."""
        reason = driver_problem(pod.cuda_version, (), spec.min_cuda_version)
        if not reason:
            return True
        log.warning("pod.host_unfit", pod_id=pod.id, name=spec.name, reason=reason)
        try:
            with STOPPING.finishing():  # nobody knows of it but this create
                self._ending.end([pod], why=reason)
        except ProviderError as error:
            text = f"pod {pod.id} ({spec.name}) was to be ended, {reason}, and is not proven gone: {error}"
            raise CreateFailed(f"{text}; the next `up` or `destroy` ends it", name=spec.name, pod_id=pod.id) from error
        trail.unfit(candidate, Avoid(candidate.gpu_id, candidate.cloud, pod.data_center_id, pod.cuda_version), reason)
        return False

    def _require_balance(self) -> None:
        if self._no_balance:
            raise NoBalance(self._no_balance)

    def _wish(self, spec: RentSpec, trail: Trail) -> Wish:
        return Wish(
            gpu_types=spec.gpu_types,
            clouds=clouds_of(spec.cloud),
            data_center_ids=spec.data_center_ids,
            min_cuda_version=spec.min_cuda_version,
            rules=self._policy.rules,
            avoid=(*self._policy.avoid, *trail.avoid),
        )

    # After an unclear answer

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
            if pod := self._keep_oldest([pod for pod in same if not self._census.was_ended(pod.id)], spec):
                log.info("pod.found_after_unclear_create", pod_id=pod.id, name=spec.name)
                return pod
            if self._clock.monotonic_s() >= end_s:
                if blind:
                    raise error from blind
                return None
            self._clock.sleep(self._policy.reconcile_pause_s)

    def _found_or_raise(self, spec: RentSpec, trail: Trail, error: PodfleetError) -> Rented:
        """Before raising: a plain refusal made no pod; after an unclear answer two lists must say so."""
        if trail.unclear is None:
            raise error
        try:
            same = self._census.named(spec.name, spec.uid, since_s=self._clock.monotonic_s())
        except ProviderError as trouble:
            text = f"it is not known whether {spec.name} was rented ({trail.unclear}; {trouble})"
            advice = "the next `up` adopts it by its name, `destroy` ends it"
            raise CreateFailed(f"{text}: {advice}", name=spec.name) from error
        if pod := self._keep_oldest([pod for pod in same if not self._census.was_ended(pod.id)], spec):
            self._means.spend.settle(spec.name, pod.id)
            return adopted_from(pod)
        raise error

    def _keep_oldest(self, same: Sequence[PodView], spec: RentSpec) -> PodView | None:
        """Of several pods of one name the oldest live one stays; what is left over by a failed end, Sweep takes."""
        fit = [pod for pod in same if pod.live and not driver_problem(pod.cuda_version, (), spec.min_cuda_version)]
        kept = min(fit, key=lambda pod: (pod.created_at_s, pod.id), default=None)
        surplus = [pod for pod in same if pod is not kept]
        try:
            self._ending.end(surplus, why="more than one pod of this name, not alive, or on a host that is too old")
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


def pod_request(spec: RentSpec, candidate: Candidate, env: dict[str, str]) -> PodRequest:
    """The POST for one candidate."""
    return PodRequest(
        name=spec.name,
        image=spec.image,
        gpu=candidate.gpu_id,
        cloud=candidate.cloud,
        data_center_id=candidate.data_center_id,
        min_cuda_version=spec.min_cuda_version,
        disk_gb=spec.disk_gb,
        ports=spec.ports,
        env=env,
        registry_id=spec.registry_id,
        volume_id=spec.volume_id,
        volume_path=spec.volume_path,
    )


def diff(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Properties that ask for another pod. Limits, keys, environment: none of them touches a running pod."""
    changed = [key for key in IDENTITY if olds.get(key) != news.get(key)]
    return [*changed, "status"] if (olds.get("status") or "ERROR") in ENDED else changed
