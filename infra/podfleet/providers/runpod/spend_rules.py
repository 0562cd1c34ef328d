"""What the spend guard decides, from numbers alone: who counts, what the day has cost, and whether one pod more may be.

PURE. Called by `spend.SpendGuard`. Decision 0010 says why it counts as it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from podfleet.config import NAMESPACE
from podfleet.errors import SpendLimit

DAY_S = 24 * 3600.0
HOUR_S = 3600.0
CENT_FRACTION = 1e-9  # sums of prices are no exact numbers


@dataclass(frozen=True, slots=True)
class SpendLimits:
    """From the configuration. `max_pods` None and dollars 0 mean: no limit."""

    max_pods: int | None = None
    max_usd_per_hour: float = 0.0
    max_usd_per_day: float = 0.0

    @property
    def of_money(self) -> bool:
        return bool(self.max_usd_per_hour or self.max_usd_per_day)

    @property
    def any(self) -> bool:
        return self.max_pods is not None or self.of_money


@dataclass(frozen=True, slots=True)
class Listed:
    """A pod of ours as the newest list has it."""

    id: str
    name: str
    usd_per_hr: float
    since_s: float
    live: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Room for one pod: reserved before its POST, kept until the list shows the pod or it is known that there is none.

    `before`: pods of this name that were there already. `seen_s`: when a list last showed the pod. In epoch seconds.
    """

    owner: str
    name: str
    usd_per_hr: float
    at_s: float
    before: frozenset[str] = frozenset()
    pod_id: str = ""
    settled_s: float = 0.0
    seen_s: float = 0.0

    def shown_in(self, listed: Sequence[Listed]) -> bool:
        """The list has its pod; while the id is unknown, a new pod of the name is it."""
        if self.pod_id:
            return any(pod.id == self.pod_id for pod in listed)
        return any(pod.name == self.name and pod.id not in self.before for pod in listed)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a hold counts that no list shows."""

    lag_s: float  # a list may lack a pod so long after the pod was made or last seen
    lost_s: float  # the POST of a process that has died may still arrive
    unsettled_s: float = 900.0  # nobody waits longer for an answer
    hidden_s: float = 600.0  # a pod of this process that no list has ever shown


@dataclass(frozen=True, slots=True)
class Moment:
    """When the newest list was asked for (epoch), and who is there."""

    asked_s: float
    own: str
    living: Collection[str]  # owners whose process lives
    ended: Collection[str] = ()  # pods that this process has asked to end


def is_due(hold: Hold, moment: Moment, terms: Terms) -> bool:
    """Whether a hold whose pod the newest list does not show still takes up room: only later lists can tell."""
    if not hold.pod_id:
        lasts_s = terms.unsettled_s if hold.owner in moment.living else terms.lost_s
        return moment.asked_s < hold.at_s + lasts_s
    if hold.pod_id in moment.ended:
        return False
    if hold.owner == moment.own and not hold.seen_s:
        return moment.asked_s < hold.settled_s + terms.hidden_s
    return moment.asked_s < max(hold.settled_s, hold.seen_s) + terms.lag_s


@dataclass(frozen=True, slots=True)
class Run:
    """A pod of ours that was once seen: from when until when at least, at which price."""

    usd_per_hr: float
    since_s: float
    until_s: float

    def usd(self, now_s: float) -> float:
        """At least so much within the last 24 hours."""
        start_s = max(self.since_s, now_s - DAY_S)
        return max(0.0, min(self.until_s, now_s) - start_s) / HOUR_S * self.usd_per_hr


@dataclass(frozen=True, slots=True)
class DaySum:
    """The last 24 hours. `unknown_usd` is the part of pods that are gone and whose owner nobody knows any more."""

    usd: float = 0.0
    unknown_usd: float = 0.0


def day_sum(bills: Mapping[str, float], runs: Mapping[str, Run], foreign: Collection[str], *, now_s: float) -> DaySum:
    """All that the account was billed for pods, but for those known to be another's; ours at least price × time."""
    known = sum(max(bills.get(pod_id, 0.0), run.usd(now_s)) for pod_id, run in runs.items())
    unknown = sum(usd for pod_id, usd in bills.items() if pod_id not in runs and pod_id not in foreign)
    return DaySum(known + unknown, unknown)


@dataclass(frozen=True, slots=True)
class Standing:
    """The fleet as it is, pods on their way included."""

    pods: int
    usd_per_hr: float
    day: DaySum


def standing(listed: Sequence[Listed], holds: Sequence[Hold], day: DaySum) -> Standing:
    """`holds` are those that still take up room; one whose pod is listed counts once, at the dearer price."""
    price = {pod.id: pod.usd_per_hr for pod in listed}
    coming = 0.0
    count = sum(pod.live for pod in listed)
    for hold in holds:
        shown = next((pod for pod in listed if pod.id == hold.pod_id), None)
        if shown:
            price[shown.id] = max(shown.usd_per_hr, hold.usd_per_hr) if shown.live else shown.usd_per_hr
        elif not hold.shown_in(listed):
            count, coming = count + 1, coming + hold.usd_per_hr
    return Standing(count, sum(price.values()) + coming, day)


def refusal(limits: SpendLimits, now: Standing, usd_per_hr: float, *, name: str) -> SpendLimit | None:
    """Why one pod more at this price may not be, with key, limit, numbers and what to do; None: it may."""
    then = now.usd_per_hr + usd_per_hr
    if limits.max_pods is not None and now.pods >= limits.max_pods:
        there = f"{now.pods} of this fleet are there or on their way"
        return _limit("maxPods", str(limits.max_pods), name, there, "raise it, or lower podfleet:pods")
    if limits.of_money and not usd_per_hr > 0:
        key = "maxUsdPerHour" if limits.max_usd_per_hour else "maxUsdPerDay"
        shown = _usd(limits.max_usd_per_hour or limits.max_usd_per_day)
        advice = "run it again when the catalogue answers, or set the limit to 0"
        return _limit(key, shown, name, "the price of this pod is not known", advice)
    if limits.max_usd_per_hour and then > limits.max_usd_per_hour + CENT_FRACTION:
        sum_ = (
            f"{now.pods} pods cost {_usd(now.usd_per_hr)}/h, with this one ({_usd(usd_per_hr)}/h) it is {_usd(then)}/h"
        )
        return _limit(
            "maxUsdPerHour", _usd(limits.max_usd_per_hour) + "/h", name, sum_, "raise it, or ask for fewer pods"
        )
    if limits.max_usd_per_day and now.day.usd + then > limits.max_usd_per_day + CENT_FRACTION:
        maybe = f" ({_usd(now.day.unknown_usd)} of it by ended pods of unknown owner)" if now.day.unknown_usd else ""
        sum_ = f"the last 24 h cost {_usd(now.day.usd)}{maybe}, the next hour with this pod {_usd(then)}"
        return _limit(
            "maxUsdPerDay", _usd(limits.max_usd_per_day), name, sum_, "raise it, or wait until the day is less"
        )
    return None


def _limit(key: str, limit: str, name: str, numbers: str, advice: str) -> SpendLimit:
    return SpendLimit(f"{name} was not rented: {NAMESPACE}:{key} is {limit}, {numbers}; {advice}", key=key)


def _usd(amount: float) -> str:
    return f"${amount:.2f}"
