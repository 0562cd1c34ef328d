"""Money in a plan: what runs now, what the wanted pods will cost, and on which GPU. Pure.

Called by the program for the line that the preview shows, and by `reconcile --dry-run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from podfleet.config import NAMESPACE
from podfleet.errors import ConfigError
from podfleet.placement import Candidate, audio_price


@dataclass(frozen=True, slots=True)
class Quote:
    """In US dollars per hour. Without a candidate there is no price, and `why_unknown` says why."""

    now_usd_per_hr: float
    then_usd_per_hr: float | None
    most_usd_per_hr: float | None
    pods_now: int
    pods_then: int
    max_pods: int
    first: Candidate | None = None
    range_usd_per_hr: tuple[float, float] = (0.0, 0.0)
    why_unknown: str = ""

    def __str__(self) -> str:
        pods = f"{self.pods_now} → {self.pods_then} pods"
        now = f"${self.now_usd_per_hr:.2f}/h now"
        if self.first is None or self.then_usd_per_hr is None or self.most_usd_per_hr is None:
            return f"{now} → price unknown: {self.why_unknown} ({pods})"
        first, (least, most) = self.first, self.range_usd_per_hr
        price = f"${first.price_usd_per_hr:.2f}/h" + (
            f" (offers: ${least:.2f} to ${most:.2f}/h)" if most > least else ""
        )
        return (
            f"{now} → ${self.then_usd_per_hr:.2f}/h then ({pods}, new ones on {first.where} at {price}, "
            f"{audio_price(first.usd_per_audio_hr, first.basis)}; "
            f"at most ${self.most_usd_per_hr:.2f}/h with {self.max_pods} pods)"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a fleet's price: 0 dollars mean no limit."""

    max_pods: int
    max_usd_per_hr: float = 0.0


def quote(
    candidates: Sequence[Candidate],
    *,
    running_usd_per_hr: Mapping[str, float],
    wanted: Sequence[str],
    limits: Limits,
    why_unknown: str = "",
) -> Quote:
    """What the wanted pods cost: those that run at their own price, new ones at the first candidate's.

    `running_usd_per_hr` maps remote names of live pods to their price. A candidate without a price has none to show.
    """
    priced = [candidate for candidate in candidates if candidate.price_usd_per_hr]
    prices = [candidate.price_usd_per_hr for candidate in priced]
    then = most = None
    if priced:
        then = sum(running_usd_per_hr.get(name, prices[0]) for name in wanted)
        most = limits.max_pods * max(prices)
        most = min(most, max(limits.max_usd_per_hr, then)) if limits.max_usd_per_hr else most
    return Quote(
        now_usd_per_hr=sum(running_usd_per_hr.values()),
        then_usd_per_hr=then,
        most_usd_per_hr=most,
        pods_now=len(running_usd_per_hr),
        pods_then=len(wanted),
        max_pods=limits.max_pods,
        first=priced[0] if priced else None,
        range_usd_per_hr=(min(prices), max(prices)) if prices else (0.0, 0.0),
        why_unknown=why_unknown,
    )


def pods_within(
    max_usd_per_hour: float, running_usd_per_hr: Iterable[float], new_usd_per_hr: float | None
) -> int | None:
    """How many pods a limit pays for; those that run stay whatever they cost. None where a new one has no price."""
    if not new_usd_per_hr:
        return None
    running = list(running_usd_per_hr)
    return len(running) + max(0, math.floor((max_usd_per_hour - sum(running)) / new_usd_per_hr + 1e-9))


def require_affordable(found: Quote, max_usd_per_hour: float) -> None:
    """Raises ConfigError where a plan makes the fleet dearer than `maxUsdPerHour`.

    A plan that makes it cheaper passes: a fleet that is over its limit must be able to shrink.
    """
    then = found.then_usd_per_hr or 0.0
    if max_usd_per_hour and then > max(max_usd_per_hour, found.now_usd_per_hr) + 1e-9:
        raise ConfigError(
            f"{NAMESPACE}:maxUsdPerHour: the plan costs ${then:.2f}/h with {found.pods_then} pods, "
            f"the limit is ${max_usd_per_hour:.2f}/h: ask for fewer or cheaper pods, or raise it"
        )
