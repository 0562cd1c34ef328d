"""When a pod must end whatever its worker says. PURE, standard library only. The supervisor asks every second.

Three rules: the absolute lifetime, the deadline of the bootstrap, and a worker that crashes again and again. A worker
that is silent is killed, which then counts as a crash; when nobody saw it go a minute later, either it cannot die or
the supervisor's own loop is stuck, and both are the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podfleet_node.lifecycle import StopReason

if TYPE_CHECKING:
    from podfleet_node.limits import Limits

WORKER_SILENCE_S = 90.0
KILLED_S = 60.0


class Verdict(StrEnum):
    """What the supervisor has to do."""

    FINE = "fine"
    END = "end"
    KILL_WORKER = "kill_worker"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the supervisor sees. Monotonic times but for `now_s`, which is compared with a date that others wrote."""

    now_s: float
    monotonic_s: float
    booted_at_s: float
    started: bool
    worker_heard_at_s: float | None = None
    worker_killed_at_s: float | None = None
    crashes_in_a_row: int = 0


def verdict(limits: Limits, pulse: Pulse) -> tuple[Verdict, StopReason | None]:
    """The one thing to do now, and the reason when it is the end."""
    if (reason := _end(limits, pulse)) is not None:
        return Verdict.END, reason
    heard_at_s = pulse.worker_heard_at_s
    if heard_at_s is not None and pulse.monotonic_s - heard_at_s >= WORKER_SILENCE_S:
        return Verdict.KILL_WORKER, None
    return Verdict.FINE, None


def _end(limits: Limits, pulse: Pulse) -> StopReason | None:
    running_s = pulse.monotonic_s - pulse.booted_at_s
    if limits.expires_at_s and pulse.now_s >= limits.expires_at_s:
        return StopReason.LIFETIME
    if limits.max_runtime_s and running_s >= limits.max_runtime_s:
        return StopReason.LIFETIME
    late = limits.bootstrap_deadline_s and running_s >= limits.bootstrap_deadline_s
    if limits.wait_for_start and not pulse.started and late:
        return StopReason.BOOTSTRAP_DEADLINE
    if limits.max_consecutive_failures and pulse.crashes_in_a_row >= limits.max_consecutive_failures:
        return StopReason.WORKER_CRASHED
    if pulse.worker_killed_at_s is not None and pulse.monotonic_s - pulse.worker_killed_at_s >= KILLED_S:
        return StopReason.WORKER_CRASHED
    return None


def restart_wait_s(crashes_in_a_row: int) -> float:
    """Back-off before the next worker: 1, 2, 4 … 30 s."""
    return float(min(30, 2 ** max(0, crashes_in_a_row - 1)))
