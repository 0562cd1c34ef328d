"""Time as an argument: the core takes a `Clock`, its tests one that they move by hand."""

from __future__ import annotations

import time
from typing import Protocol

from podfleet.providers.runpod.stopping import STOPPING


class Clock(Protocol):
    """What the core may know of time."""

    def now_s(self) -> float:
        """Seconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds that never go backwards."""

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait."""


class RealClock:
    """The machine's own time. A sleep ends early, with Interrupted, in a process that was told to stop."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        STOPPING.wait(seconds)
