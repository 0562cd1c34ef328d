"""How many calls the account may still make: learned from the API's own headers. Pure; `pacing` waits by it.

RunPod counts the calls of one user in windows (a minute, an hour, a day) and says in each answer how many are left
until when: `RateLimit: "minute";r=12;t=31`, `RateLimit-Policy: "minute";q=60;w=60`. What others of the same account
use (nodes, a second terminal) shows in `r`, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

ITEM = re.compile(r'^\s*"?([\w.-]+)"?((?:\s*;\s*[a-z]+=\d+)+)\s*$')
RESERVED_SHARE = 0.1  # of a window: renting leaves so much to ends and looks, and to the nodes that end themselves
MAX_LIST_GAP_S = 5.0
MARGIN_S = 0.1
PROBE_S = 5.0  # so long one call alone finds out how things stand


class Kind(IntEnum):
    """What a call is for, the most urgent first: what ends a cost, then what rents, then looks."""

    END = 0
    CREATE = 1
    CHANGE = 2
    LIST = 3
    READ = 4


RESERVE_IS_FOR = frozenset({Kind.END, Kind.LIST, Kind.READ})


@dataclass(frozen=True, slots=True)
class Quota:
    """One window, as an answer shows it. `limit` and `length_s` are None where the policy is not told."""

    name: str
    left: int
    ends_in_s: float
    limit: int | None = None
    length_s: float | None = None


def quotas(headers: Mapping[str, str]) -> tuple[Quota, ...]:
    """From `RateLimit` and `RateLimit-Policy`; what cannot be read is passed over."""
    policies = {name: (given.get("q"), given.get("w")) for name, given in _items(headers.get("RateLimit-Policy", ""))}
    found = []
    for name, given in _items(headers.get("RateLimit", "")):
        if "r" in given and "t" in given:
            limit, length_s = policies.get(name, (None, None))
            found.append(Quota(name, given["r"], float(given["t"]), limit, length_s))
    return tuple(found)


def _items(text: str) -> list[tuple[str, dict[str, int]]]:
    matches = (ITEM.match(item) for item in text.split(",") if item.strip())
    pairs = ((found[1], re.findall(r"([a-z]+)=(\d+)", found[2])) for found in matches if found)
    return [(name, {key: int(value) for key, value in values}) for name, values in pairs]


@dataclass(slots=True)
class _Window:
    """`sent`: our calls that count in it; `others`: calls that were not ours, as far as answers have shown.

    `told`: its end is the API's word, and not only a guess of ours since the one before has ended.
    """

    limit: int
    length_s: float
    ends_s: float
    sent: int
    others: int = 0
    told: bool = True
    slack_s: float = MARGIN_S

    @property
    def over_s(self) -> float:
        """When calls may be made that it had no room for."""
        return self.ends_s + self.slack_s

    @property
    def left(self) -> int:
        return self.limit - self.others - self.sent

    def left_for(self, kind: Kind) -> int:
        reserved = 0 if kind in RESERVE_IS_FOR else math.ceil(self.limit * RESERVED_SHARE)
        return self.left - reserved


class Budget:
    """Not thread-safe. `now_s` is monotonic; `jitter_s` is added to the end of each window, so that programs which wait
    for the same one do not come back at the same moment."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}
        self._in_flight = 0
        self._blocked_until_s = 0.0
        self._unsure = True
        self._probe_s = -math.inf

    def wait_s(self, kind: Kind, now_s: float) -> float:
        """How long until such a call may be made; 0: now, if `may_start`."""
        ends = [window.over_s for window in self._windows.values() if self._used_up(window, kind, now_s)]
        return max([0.0, *(end_s - now_s for end_s in ends), self._blocked_until_s - now_s])

    def may_start(self, now_s: float) -> bool:
        """False while a first call, alone, finds out how things stand: at the start, and after a refusal."""
        return not (self._unsure and self._in_flight and now_s - self._probe_s < PROBE_S)

    def start(self, now_s: float) -> None:
        """A call is about to be sent."""
        for window in self._windows.values():
            self._roll(window, now_s)
            window.sent += 1
        self._in_flight += 1
        self._probe_s = now_s

    def drop(self) -> None:
        """That call was not sent after all."""
        self._in_flight -= 1
        for window in self._windows.values():
            window.sent = max(0, window.sent - 1)

    def done(self) -> None:
        """That call is over, with or without an answer."""
        self._in_flight -= 1

    def learn(self, told: Iterable[Quota], now_s: float, *, jitter_s: float) -> None:
        """An answer has come; to be called before `done`."""
        self._unsure = False
        for quota in told:
            ends_s = now_s + quota.ends_in_s
            window = self._windows.get(quota.name)
            if window is None or ends_s > window.ends_s + window.length_s / 2:
                window = self._begin(quota, ends_s, MARGIN_S + jitter_s)
            elif ends_s < window.ends_s - window.length_s / 2:
                continue  # a late answer: it tells of the window before
            window.ends_s = min(ends_s, window.ends_s) if window.told else ends_s  # an answer's way makes it look late
            window.told = True
            window.others = max(window.others, window.limit - quota.left - window.sent)

    def refuse(self, retry_in_s: float, now_s: float, *, jitter_s: float) -> None:
        """429: nobody calls until then, and then one alone."""
        self._blocked_until_s = max(self._blocked_until_s, now_s + retry_in_s + jitter_s)
        self._unsure = True

    def list_gap_s(self, now_s: float) -> float:
        """How far apart lists have to be. Where less than half of a window is left, they take at most half of that.

        But never further than MAX_LIST_GAP_S: what was ended has to be seen gone.
        """
        gaps = [
            (window.ends_s - now_s) / max(1.0, window.left / 2)
            for window in self._windows.values()
            if now_s < window.ends_s and window.left < window.limit / 2
        ]
        return min(max(gaps, default=0.0), MAX_LIST_GAP_S)

    def _used_up(self, window: _Window, kind: Kind, now_s: float) -> bool:
        return now_s < window.over_s and window.left_for(kind) <= 0

    def _begin(self, quota: Quota, ends_s: float, slack_s: float) -> _Window:
        """All that is on its way counts in the new window, as far as we know."""
        limit = quota.limit if quota.limit is not None else quota.left + self._in_flight
        window = _Window(limit, quota.length_s or quota.ends_in_s, ends_s, max(1, self._in_flight), slack_s=slack_s)
        self._windows[quota.name] = window
        return window

    def _roll(self, window: _Window, now_s: float) -> None:
        """Its end has passed: a new one begins with this call."""
        if now_s >= window.over_s:
            window.ends_s, window.told = now_s + window.length_s, False
            window.sent, window.others = self._in_flight, 0
