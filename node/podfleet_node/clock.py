"""Time as an argument: the clock that loops get, so that tests never sleep. Used by supervisor and worker."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for dates that others wrote, monotonic time for everything that the node measures itself."""

    def now_s(self) -> float:
        """Seconds since the epoch."""

    def monotonic_s(self) -> float:
        """Seconds that never jump."""

    async def sleep(self, seconds: float) -> None:
        """Give way to others for so long."""


class SystemClock:
    """The clock of the machine."""

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running event loop."""
        import anyio  # noqa: PLC0415 - the supervisor uses this clock without an event loop

        await anyio.sleep(seconds)
