"""How pods end: drained together, asked to end, and proven gone. Shared by Pod, Guard and Sweep."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from podfleet.errors import PodfleetError, StillThere
from podfleet.providers.runpod.census import Census
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.drain import DrainOutcome
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.wire import PodView

log = structlog.get_logger()
PATIENCE_S = 60.0  # how long a pod may go on being listed after its DELETE
LOOK_AGAIN_S = 1.0  # then doubled
MAX_LOOK_AGAIN_S = 5.0
ASK_AGAIN_S = 5.0  # then doubled
ASKERS = 16


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
        """Looks until they are gone, and asks again, each time after twice as long: a list may only lag behind."""
        give_up_s, asked_s, gap_s, look_s = since_s + PATIENCE_S, since_s, ASK_AGAIN_S, LOOK_AGAIN_S
        while True:
            gone = self._census.absent(left, since_s=since_s)
            self._gone |= gone
            left -= gone
            if not left:
                return
            now_s = self._clock.monotonic_s()
            if now_s >= give_up_s:
                text = f"{_named(sorted(left))} still listed {PATIENCE_S:.0f} s after the end was asked for"
                raise StillThere(f"{text}: still costs money, run `pulumi destroy` or `up` again", pod_ids=sorted(left))
            self._clock.sleep(look_s)
            look_s = min(2 * look_s, MAX_LOOK_AGAIN_S)
            since_s = self._clock.monotonic_s()
            if since_s - asked_s >= gap_s:
                asked_s, gap_s = since_s, 2 * gap_s
                self._ask(sorted(left))


def _named(pod_ids: Sequence[str]) -> str:
    return f"pod{'s' if len(pod_ids) > 1 else ''} {', '.join(pod_ids)}"
