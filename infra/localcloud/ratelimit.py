"""Fixed windows per minute, hour and day over all keys of the account. Used by `door`."""

import math
import time
from dataclasses import dataclass, field

from localcloud.facts import Facts


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headers for the answer, and how long to stay away when a window is used up."""

    headers: dict[str, str]
    retry_after_s: int | None


@dataclass(slots=True)
class _Window:
    name: str
    length_s: int
    start_s: float = 0.0
    used: int = 0

    def count(self, now_s: float) -> None:
        if now_s - self.start_s >= self.length_s:
            self.start_s, self.used = now_s, 0
        self.used += 1

    def left_s(self, now_s: float) -> int:
        return max(1, math.ceil(self.start_s + self.length_s - now_s))


@dataclass(slots=True)
class RateLimit:
    """Counts requests."""

    _windows: list[_Window] = field(
        default_factory=lambda: [_Window("minute", 60), _Window("hour", 3600), _Window("day", 86400)]
    )

    def count(self, facts: Facts, now_s: float | None = None) -> Verdict:
        """Count one request against the limits of now; a refused request counts, too."""
        now_s = time.monotonic() if now_s is None else now_s
        limits = (facts.rate_limit_per_minute, facts.rate_limit_per_hour, facts.rate_limit_per_day)
        left, policy, retry_after_s = [], [], None
        for window, limit in zip(self._windows, limits, strict=True):
            window.count(now_s)
            rest_s = window.left_s(now_s)
            left.append(f'"{window.name}";r={max(0, limit - window.used)};t={rest_s}')
            policy.append(f'"{window.name}";q={limit};w={window.length_s}')
            if window.used > limit:
                retry_after_s = max(rest_s, retry_after_s or 0)
        return Verdict({"RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policy)}, retry_after_s)
