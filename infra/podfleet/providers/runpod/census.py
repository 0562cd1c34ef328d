"""One shared view of the account's pods: complete lists, each used by every resource of the process that can use it.

Who needs fresh facts says from when on; a list that was asked for since then, by whichever thread, will do. So fifty
pods that are deleted or awaited at the same time cost one list per look, and the API's 60 requests a minute suffice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.wire import PodView

SLICE_S = 0.5  # somebody who waits for another's list looks up so often whether he is to stop


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete list. `asked_s` (monotonic) is when it was asked for: what happened later is not in it."""

    asked_s: float
    pods: tuple[PodView, ...]

    def find(self, pod_id: str) -> PodView | None:
        return next((pod for pod in self.pods if pod.id == pod_id), None)


@dataclass(frozen=True, slots=True)
class Looks:
    """How often the census may look, and how far apart two looks must be to prove that something is absent."""

    absence_interval_s: float = 10.0
    poll_interval_s: float = 10.0
    min_interval_s: float = 1.0


class Census:
    """Thread-safe. Every method raises the client's error when the list fails: no list, no statement."""

    def __init__(
        self,
        list_pods: Callable[[], tuple[PodView, ...]],
        *,
        looks: Looks,
        clock: Clock,
        gap_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`gap_s`: how far apart lists have to be by the API's own limits, as things stand."""
        self._list_pods = list_pods
        self._gap_s = gap_s
        self._looks = looks
        self._clock = clock
        self._cond = threading.Condition()
        self._asking = False
        self._last: Snapshot | None = None
        self._ended: set[str] = set()

    @property
    def poll_interval_s(self) -> float:
        """How far apart the looks of those who wait are."""
        return self._looks.poll_interval_s

    @property
    def absence_interval_s(self) -> float:
        """How far apart two lists have to be that prove an absence."""
        return self._looks.absence_interval_s

    def since(self, not_before_s: float) -> Snapshot:
        """A list that was asked for at `not_before_s` (monotonic) or later; waits until then."""
        self._clock.sleep(not_before_s - self._clock.monotonic_s())
        with self._cond:
            while self._last is None or self._last.asked_s < not_before_s:
                if not self._asking:
                    self._asking = True
                    break
                self._cond.wait(SLICE_S)
                STOPPING.check()
            else:
                return self._last
        return self._ask()

    def now(self) -> Snapshot:
        """Asked for from this moment on."""
        return self.since(self._clock.monotonic_s())

    def recent(self) -> Snapshot:
        """Not older than one poll interval."""
        return self.since(self._clock.monotonic_s() - self._looks.poll_interval_s)

    def next_poll(self, last: Snapshot | None) -> Snapshot:
        """The list after `last`, one poll interval later. All pollers share it."""
        return self.since(last.asked_s + self._looks.poll_interval_s) if last else self.recent()

    def absent(self, ids: Iterable[str], *, since_s: float) -> frozenset[str]:
        """Those of `ids` that are proven absent: missing from two complete lists, both asked for after `since_s`
        and at least the absence interval apart."""
        first = self.since(since_s)
        missing = {pod_id for pod_id in ids if first.find(pod_id) is None}
        return frozenset(missing - {pod.id for pod in self._second(first).pods}) if missing else frozenset()

    def named(self, name: str, uid: str, *, since_s: float) -> tuple[PodView, ...]:
        """Pods with this exact name and uid; an empty answer is a proof of absence, by two lists."""
        first = self.since(since_s)
        return self._by_name(first, name, uid) or self._by_name(self._second(first), name, uid)

    def note_ended(self, pod_id: str) -> None:
        """This process has asked for its end: nobody here may adopt it from an older list."""
        self._ended.add(pod_id)

    def was_ended(self, pod_id: str) -> bool:
        return pod_id in self._ended

    def _second(self, first: Snapshot) -> Snapshot:
        return self.since(first.asked_s + self._looks.absence_interval_s)

    @staticmethod
    def _by_name(snapshot: Snapshot, name: str, uid: str) -> tuple[PodView, ...]:
        return tuple(pod for pod in snapshot.pods if pod.name == name and pod.uid == uid)

    def _ask(self) -> Snapshot:
        try:
            if self._last:
                gap_s = max(self._looks.min_interval_s, self._gap_s())
                self._clock.sleep(self._last.asked_s + gap_s - self._clock.monotonic_s())
            snapshot = Snapshot(self._clock.monotonic_s(), self._list_pods())
            with self._cond:
                self._last = snapshot
            return snapshot
        finally:
            with self._cond:
                self._asking = False
                self._cond.notify_all()


def is_ours(pod: PodView, *, uid: str, prefix: str) -> bool:
    """Our uid *and* our name prefix; anything else is never touched. An empty uid or prefix owns nothing."""
    return bool(uid) and bool(prefix) and pod.uid == uid and pod.name.startswith(prefix)
