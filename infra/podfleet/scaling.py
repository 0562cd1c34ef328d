"""How many pods, which slots, and why. Pure: no clock, no network, no log.

Called by the reconciler, which observes first and acts afterwards. Every number in a decision comes from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from podfleet.config import slots_for

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

STALE_AFTER_S = 120.0
HOLDING = frozenset({"paused", "hold"})


class SlotState(StrEnum):
    """What a slot's pod is doing, as far as the signals tell."""

    BOOTING = "booting"
    BUSY = "busy"
    IDLE = "idle"
    GONE = "gone"


BUSIEST_FIRST = (SlotState.BUSY, SlotState.BOOTING, SlotState.IDLE, SlotState.GONE)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the queue asks for. `claimable_jobs` leaves out retries that are not due and jobs nobody may claim."""

    claimable_jobs: int
    running_jobs: int
    observed_at_s: float


@dataclass(frozen=True, slots=True)
class Slot:
    """One named slot and the state of its pod."""

    name: str
    state: SlotState


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """The request-count policy: one pod for `jobs_per_pod` jobs, between two limits, and within the money.

    `affordable_pods`: how many pods `maxUsdPerHour` pays for, those that run included; None: no limit.
    """

    jobs_per_pod: int
    min_pods: int
    max_pods: int
    enabled: bool = True
    affordable_pods: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The size, the slots that make it up, what limited it (`binding`) and the reason in one sentence."""

    size: int
    slots: tuple[str, ...]
    binding: str
    reason: str

    def changes(self, fleet: tuple[Slot, ...]) -> bool:
        """Whether there is something to do: other slots than before, or a wanted slot whose pod is gone."""
        if self.binding in HOLDING:
            return False
        live = {slot.name for slot in fleet if slot.state is not SlotState.GONE}
        return not (set(self.slots) == live == {slot.name for slot in fleet})


def policy_of(config: PodfleetConfig, affordable_pods: int | None = None) -> ScalingPolicy:
    """The policy that a stack's config asks for, at today's prices."""
    return ScalingPolicy(config.jobs_per_pod, config.min_pods, config.max_pods, config.enabled, affordable_pods)


def decide(demand: Demand, fleet: tuple[Slot, ...], policy: ScalingPolicy, *, now_s: float) -> Decision:
    """The size of the fleet. More work never asks for fewer pods; only idle pods and empty slots go."""
    present = tuple(slot.name for slot in fleet)
    if not policy.enabled:
        return Decision(len(present), present, "paused", f"held at {len(present)}: podfleet:enabled is false")
    age_s = now_s - demand.observed_at_s
    if age_s > STALE_AFTER_S:
        return Decision(len(present), present, "hold", f"held at {len(present)}: the queue was read {age_s:.0f} s ago")
    target, binding = _target(demand, policy)
    slots = _slots(target, fleet)
    if len(slots) > target:
        binding = "busy"
    return Decision(len(slots), slots, binding, _reason(demand, policy, fleet, slots, binding))


def idle_first(pods: int, fleet: tuple[Slot, ...]) -> tuple[str, ...]:
    """Exactly `pods` slots, as a person asked: pods at work are the last to go."""
    ranked = sorted(fleet, key=lambda slot: (BUSIEST_FIRST.index(slot.state), slot.name))
    return slots_for(pods, [slot.name for slot in ranked])


def _target(demand: Demand, policy: ScalingPolicy) -> tuple[int, str]:
    wished = math.ceil((demand.claimable_jobs + demand.running_jobs) / policy.jobs_per_pod)
    target, binding = wished, "jobs"
    if wished > policy.max_pods:
        target, binding = policy.max_pods, "max"
    if wished < policy.min_pods:
        target, binding = policy.min_pods, "min"
    if policy.affordable_pods is not None and target > policy.affordable_pods:
        return policy.affordable_pods, "money"
    return target, binding


def _slots(target: int, fleet: tuple[Slot, ...]) -> tuple[str, ...]:
    """Pods that work or boot stay whatever the target; then idle ones; a slot whose pod is gone is used last."""
    by_state = {state: sorted(slot.name for slot in fleet if slot.state is state) for state in SlotState}
    must_stay = by_state[SlotState.BUSY] + by_state[SlotState.BOOTING]
    may_stay = by_state[SlotState.IDLE] + by_state[SlotState.GONE]
    kept = must_stay + may_stay[: max(0, target - len(must_stay))]
    return slots_for(max(target, len(kept)), kept)


def _reason(
    demand: Demand, policy: ScalingPolicy, fleet: tuple[Slot, ...], slots: tuple[str, ...], binding: str
) -> str:
    work = f"{demand.claimable_jobs} jobs waiting and {demand.running_jobs} running, one pod per {policy.jobs_per_pod}"
    limits = {
        "max": f", at most {policy.max_pods}",
        "min": f", at least {policy.min_pods}",
        "money": f", podfleet:maxUsdPerHour pays for {policy.affordable_pods}",
        "busy": ", pods at work stay until they are idle",
    }
    return f"{len(fleet)} → {len(slots)} pods: {work}{limits.get(binding, '')}"
