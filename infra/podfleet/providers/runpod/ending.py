"""How pods end: drained together, asked to end, and proven gone. Shared by Pod, Guard and Sweep."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from podfleet.errors import PodfleetError, StillThere
from podfleet.providers.runpod.census import Census, Snapshot
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.drain import DrainOutcome
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.wire import PodView

log = structlog.get_logger()
PATIENCE_S = 60.0  # how long a pod may go on being listed after its DELETE
LOOK_AGAIN_S = 1.0  # then doubled
MAX_LOOK_AGAIN_S = 5.0
ASK_AGAIN_S = 5.0  # then doubled
ASKERS = 32


class DeletesPods(Protocol):
    """The part of the client that is needed here."""

    def delete_pod(self, pod_id: str) -> bool: ...


class Drains(Protocol):
    """`drain.Drain`, or none in tests."""

    def run(self, pods: Sequence[PodView]) -> list[DrainOutcome]: ...


class Watch(Protocol):
    """`engine.EngineWatch`."""

    def require(self, what: str) -> None: ...


class Ending:
    """Ends pods. Idempotent: an absent pod is a success."""

    def __init__(self, client: DeletesPods, census: Census, drain: Drains, engine: Watch, clock: Clock) -> None:
        self._client = client
        self._census = census
        self._drain = drain
        self._engine = engine
        self._clock = clock
        self._gone: set[str] = set()  # proven by this process: an id never comes back

    def end(self, pods: Sequence[PodView], *, ids: Sequence[str] = (), why: str) -> None:
        """End `pods` (as listed) and `ids` (not listed: asked all the same, a list may lag behind).

        What Guard has ended and proven gone in this process is not asked for again by the pod's own resource.
        Returns when all are proven absent. Raises StillThere, EngineGone or what the API said; every pod has then been
        asked to end that could be asked.
        """
        wanted = [pod.id for pod in pods] + [pod_id for pod_id in ids if pod_id not in self._gone]
        if not wanted:
            return
        self._engine.require(f"ending {_named(wanted)}")
        if running := [pod.id for pod in pods if pod.status == "RUNNING"]:
            log.info("pods.draining", pod_ids=running, why=why)
        for outcome in self._drain.run(pods):
            log.info("pod.drain", pod_id=outcome.pod_id, told=outcome.told, result=outcome.text)
        self._engine.require(f"ending {_named(wanted)}")
        since_s = self._clock.monotonic_s()
        self._ask(wanted)
        with STOPPING.finishing():
            self._prove(set(wanted), since_s)
        log.info("pods.ended", pod_ids=wanted, why=why)

    def _ask(self, pod_ids: Sequence[str]) -> None:
        """All at the same time; what goes wrong with one holds up no other, since each costs money."""
        with ThreadPoolExecutor(min(ASKERS, len(pod_ids))) as askers:
            errors = [error for error in askers.map(STOPPING.passed_on(self._ask_one), pod_ids) if error]
        if errors:
            raise errors[0]

    def _ask_one(self, pod_id: str) -> PodfleetError | None:
        self._census.note_ended(pod_id)
        try:
            self._client.delete_pod(pod_id)
        except PodfleetError as error:
            return error
        return None

    def _prove(self, left: set[str], since_s: float) -> None:
        """Looks until all are gone, and asks those again that are still listed, each time after twice as long."""
        proof = _Proof(left, self._census.absence_interval_s)
        give_up_s, asked_s, gap_s, look_s = since_s + PATIENCE_S, since_s, ASK_AGAIN_S, LOOK_AGAIN_S
        while True:
            snapshot = self._census.since(since_s)
            self._gone |= proof.see(snapshot)
            if not proof.left:
                return
            since_s = proof.next_look_s()
            if listed := sorted(proof.listed):
                now_s = self._clock.monotonic_s()
                if now_s >= give_up_s:
                    raise StillThere(_still_there(listed), pod_ids=listed)
                if now_s - asked_s >= gap_s:
                    asked_s, gap_s = now_s, 2 * gap_s
                    self._ask(listed)
                since_s, look_s = now_s + look_s, min(2 * look_s, MAX_LOOK_AGAIN_S)


class _Proof:
    """Which pods are missing, and since which list: gone is what two lists, an interval apart, and all between lack."""

    def __init__(self, left: set[str], interval_s: float) -> None:
        self.left = left
        self._interval_s = interval_s
        self._missing_since_s: dict[str, float] = {}

    @property
    def listed(self) -> set[str]:
        """Those that the last list still showed."""
        return self.left - self._missing_since_s.keys()

    def see(self, snapshot: Snapshot) -> set[str]:
        """One more list; answers those that are proven gone by it."""
        for pod in snapshot.pods:
            self._missing_since_s.pop(pod.id, None)
        present = {pod.id for pod in snapshot.pods}
        for pod_id in self.left - present:
            self._missing_since_s.setdefault(pod_id, snapshot.asked_s)
        long_ago_s = snapshot.asked_s - self._interval_s
        gone = {pod_id for pod_id in self.left - present if self._missing_since_s[pod_id] <= long_ago_s}
        self.left -= gone
        return gone

    def next_look_s(self) -> float:
        """When one list can prove all that are missing now."""
        return max(self._missing_since_s.values(), default=0.0) + self._interval_s


def _still_there(listed: Sequence[str]) -> str:
    text = f"{_named(listed)} still listed {PATIENCE_S:.0f} s after the end was asked for"
    return f"{text}: still costs money, run `pulumi destroy` or `up` again"


def _named(pod_ids: Sequence[str]) -> str:
    return f"pod{'s' if len(pod_ids) > 1 else ''} {', '.join(pod_ids)}"
