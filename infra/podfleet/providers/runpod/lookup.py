"""After a create without an answer: is it there? Shared by the cores of registry logins and volumes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from podfleet.errors import ApiUnavailable, RateLimited
from podfleet.providers.runpod.clock import Clock

log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lookup:
    """Looks for as long as the settings say that a lost POST may take to show."""

    clock: Clock
    for_s: float
    pause_s: float

    def after(self, error: ApiUnavailable, find: Callable[[], T | None]) -> T | None:
        """What `find` finds within that time, else None: the error stands, and the next run finds it by its name."""
        if not error.maybe_done:
            return None
        log.warning("create.unclear", reason=str(error))
        end_s = self.clock.monotonic_s() + self.for_s
        while True:
            with suppress(ApiUnavailable, RateLimited):  # a blind look is no look
                if found := find():
                    return found
            if self.clock.monotonic_s() >= end_s:
                return None
            self.clock.sleep(self.pause_s)
