"""The size of the fleet: a table for the request-count policy, properties for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet.scaling import Demand, ScalingPolicy, Slot, SlotState, decide, idle_first

NOW_S = 1_000.0
POLICY = ScalingPolicy(jobs_per_pod=4, min_pods=0, max_pods=6)

states = st.sampled_from(SlotState)
fleets = st.lists(states, max_size=8).map(
    lambda found: tuple(Slot(f"slot-{number:02d}", state) for number, state in enumerate(found, 1))
)
policies = st.builds(
    lambda per_pod, low, extra, paid: ScalingPolicy(per_pod, low, low + extra, affordable_pods=paid),
    st.integers(1, 10),
    st.integers(0, 4),
    st.integers(0, 10),
    st.none() | st.integers(0, 12),
)
jobs = st.integers(0, 200)


def demand(claimable: int, running: int = 0, age_s: float = 0) -> Demand:
    return Demand(claimable, running, NOW_S - age_s)


@pytest.mark.parametrize(("depth", "size"), [(0, 0), (3, 1), (8, 2), (40, 6)])
def test_depth_to_size(depth: int, size: int) -> None:
    assert decide(demand(depth), (), POLICY, now_s=NOW_S).size == size


@given(jobs, jobs, fleets, policies)
def test_the_size_is_the_number_of_slots_and_each_is_named_once(
    claimable: int, running: int, fleet: tuple[Slot, ...], policy: ScalingPolicy
) -> None:
    decision = decide(demand(claimable, running), fleet, policy, now_s=NOW_S)
    assert decision.size == len(decision.slots) == len(set(decision.slots))


@given(jobs, jobs, fleets, policies)
def test_more_work_never_asks_for_fewer_pods(
    claimable: int, more: int, fleet: tuple[Slot, ...], policy: ScalingPolicy
) -> None:
    less = decide(demand(claimable), fleet, policy, now_s=NOW_S)
    assert decide(demand(claimable + more), fleet, policy, now_s=NOW_S).size >= less.size


@given(jobs, fleets, policies)
def test_only_idle_pods_and_empty_slots_go(claimable: int, fleet: tuple[Slot, ...], policy: ScalingPolicy) -> None:
    kept = decide(demand(claimable), fleet, policy, now_s=NOW_S).slots
    gone = {slot.state for slot in fleet if slot.name not in kept}
    assert gone <= {SlotState.IDLE, SlotState.GONE}


@given(jobs, fleets, policies)
def test_limits_hold_unless_pods_at_work_forbid_it(
    claimable: int, fleet: tuple[Slot, ...], policy: ScalingPolicy
) -> None:
    decision = decide(demand(claimable), fleet, policy, now_s=NOW_S)
    at_work = sum(slot.state in {SlotState.BUSY, SlotState.BOOTING} for slot in fleet)
    paid = policy.max_pods if policy.affordable_pods is None else policy.affordable_pods
    assert min(policy.min_pods, paid) <= decision.size <= max(min(policy.max_pods, paid), at_work)


@given(jobs, fleets, policies, st.floats(120.1, 1e6))
def test_a_stale_signal_never_changes_the_size(
    claimable: int, fleet: tuple[Slot, ...], policy: ScalingPolicy, age_s: float
) -> None:
    decision = decide(demand(claimable, age_s=age_s), fleet, policy, now_s=NOW_S)
    assert decision.slots == tuple(slot.name for slot in fleet)
    assert not decision.changes(fleet)


def test_money_limits_the_size_and_the_reason_says_so() -> None:
    policy = ScalingPolicy(jobs_per_pod=4, min_pods=0, max_pods=6, affordable_pods=3)
    decision = decide(demand(40), (), policy, now_s=NOW_S)
    assert (decision.size, decision.binding) == (3, "money")
    assert decision.reason == (
        "0 → 3 pods: 40 jobs waiting and 0 running, one pod per 4, podfleet:maxUsdPerHour pays for 3"
    )
    assert decide(demand(8), (), policy, now_s=NOW_S).binding == "jobs"


def test_a_disabled_policy_holds() -> None:
    fleet = (Slot("slot-01", SlotState.IDLE),)
    decision = decide(demand(0), fleet, ScalingPolicy(4, 0, 6, enabled=False), now_s=NOW_S)
    assert (decision.slots, decision.binding) == (("slot-01",), "paused")


def test_a_slot_whose_pod_is_gone_leaves_when_nothing_asks_for_it_and_is_rented_again_when_demand_does() -> None:
    fleet = (Slot("slot-01", SlotState.BUSY), Slot("slot-02", SlotState.GONE))
    calm = decide(demand(0, running=1), fleet, POLICY, now_s=NOW_S)
    assert calm.slots == ("slot-01",)
    burst = decide(demand(8), fleet, POLICY, now_s=NOW_S)
    assert burst.slots == ("slot-01", "slot-02")
    assert burst.changes(fleet)


def test_the_reason_names_the_numbers_and_the_limit() -> None:
    assert decide(demand(40), (), POLICY, now_s=NOW_S).reason == (
        "0 → 6 pods: 40 jobs waiting and 0 running, one pod per 4, at most 6"
    )


@given(fleets, st.integers(0, 10))
def test_by_hand_the_size_is_exact_and_pods_at_work_go_last(fleet: tuple[Slot, ...], pods: int) -> None:
    kept = idle_first(pods, fleet)
    assert len(kept) == pods
    dropped = {slot.state for slot in fleet if slot.name not in kept}
    kept_states = {slot.state for slot in fleet if slot.name in kept}
    if SlotState.BUSY in dropped:
        assert not kept_states & {SlotState.IDLE, SlotState.GONE}
