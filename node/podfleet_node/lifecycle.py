"""Claim, wait or stop: the node's whole judgement. PURE. The worker asks `decide` before every claim and every second.

The four rules of self-termination are here and nowhere else: the queue stays empty, nothing to do for long, the server
cannot be reached, failures in a row. `keep_alive` switches the four off, 0 switches one off. The absolute lifetime is
not here: it belongs to the watchdog of the supervisor, which rests on nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podfleet_node.settings import NodeSettings

DRAINED_END_S = 300.0


class StopReason(StrEnum):
    """Why a pod ends itself."""

    EMPTY_QUEUE = "empty_queue"
    IDLE = "idle"
    SERVER_UNREACHABLE = "server_unreachable"
    FAILURES = "failures_in_a_row"
    DRAINED = "drained"
    LIFETIME = "lifetime"
    BOOTSTRAP_DEADLINE = "bootstrap_deadline"
    SMOKE_TEST = "smoke_test"
    SETTINGS = "settings"
    WORKER_CRASHED = "worker_crashed"
    TERMINATED = "terminated"


class Act(StrEnum):
    """What to do now."""

    CLAIM = "claim"
    WAIT = "wait"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Action:
    """What to do, for how long at most, and why."""

    act: Act
    wait_s: float = 0.0
    reason: StopReason | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """All that the judgement rests on. Times are of one monotonic clock; a new value per event."""

    contact_at_s: float
    work_at_s: float
    asked_at_s: float = float("-inf")
    more_likely: bool = False
    empty_checks: int = 0
    empty_check_at_s: float = float("-inf")
    failures_in_a_row: int = 0
    held: int = 0
    draining: bool = False
    drained_at_s: float | None = None

    @classmethod
    def started(cls, now_s: float) -> Activity:
        """A node that has just become able to work."""
        return cls(contact_at_s=now_s, work_at_s=now_s)

    def contact(self, now_s: float) -> Activity:
        """The server answered something below 500."""
        return replace(self, contact_at_s=now_s)

    def claimed(self, now_s: float) -> Activity:
        """A claim gave a job."""
        never = float("-inf")
        return replace(
            self, asked_at_s=now_s, work_at_s=now_s, more_likely=True, empty_checks=0, empty_check_at_s=never
        )

    def unanswered(self, now_s: float) -> Activity:
        """A claim got no answer: says nothing about the queue, but the next one waits."""
        return replace(self, asked_at_s=now_s, more_likely=False)

    def empty(self, now_s: float, wait_s: float) -> Activity:
        """A claim gave nothing. It counts as a check when the last counted one is `wait_s` ago."""
        asked = self.unanswered(now_s)
        if now_s - self.empty_check_at_s < wait_s:
            return asked
        return replace(asked, empty_checks=self.empty_checks + 1, empty_check_at_s=now_s)

    def holding(self, held: int, now_s: float) -> Activity:
        """So many jobs are in our hands now."""
        worked = held > 0 or self.held > 0
        return replace(self, held=held, work_at_s=now_s if worked else self.work_at_s)

    def succeeded(self) -> Activity:
        """A job became a transcript."""
        return replace(self, failures_in_a_row=0)

    def failed(self) -> Activity:
        """A job failed here."""
        return replace(self, failures_in_a_row=self.failures_in_a_row + 1)

    def drain(self) -> Activity:
        """No further claims."""
        return replace(self, draining=True)

    def drained(self, now_s: float) -> Activity:
        """Nothing is held any more, or the deadline of the drain has passed."""
        return replace(self, draining=True, drained_at_s=now_s)


def decide(activity: Activity, settings: NodeSettings, *, room: bool, now_s: float) -> Action:
    """The one next step. `room`: the prefetch could take another job."""
    if (reason := stop_reason(activity, settings, now_s=now_s)) is not None:
        return Action(Act.STOP, reason=reason)
    if activity.draining or not room:
        return Action(Act.WAIT, wait_s=settings.poll_s)
    due_in_s = 0.0 if activity.more_likely else activity.asked_at_s + settings.poll_s - now_s
    return Action(Act.WAIT, wait_s=due_in_s) if due_in_s > 0 else Action(Act.CLAIM)


def stop_reason(activity: Activity, settings: NodeSettings, *, now_s: float) -> StopReason | None:
    """The first rule that says: this pod's reasons have ended."""
    if activity.drained_at_s is not None and now_s - activity.drained_at_s >= DRAINED_END_S:
        return StopReason.DRAINED
    if settings.keep_alive:
        return None
    free = not activity.held and not activity.draining
    empty = free and settings.stop_on_empty_queue and _reached(activity.empty_checks, settings.empty_queue_checks)
    rules = (
        (_reached(activity.failures_in_a_row, settings.max_consecutive_failures), StopReason.FAILURES),
        (_reached(now_s - activity.contact_at_s, settings.server_unreachable_s), StopReason.SERVER_UNREACHABLE),
        (empty, StopReason.EMPTY_QUEUE),
        (free and _reached(now_s - activity.work_at_s, settings.idle_timeout_s), StopReason.IDLE),
    )
    return next((reason for ended, reason in rules if ended), None)


def _reached(value: float, limit: float) -> bool:
    return limit > 0 and value >= limit
