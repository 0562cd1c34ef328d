"""The judgement of a node: when it claims, waits and ends its pod."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet_node.lifecycle import DRAINED_END_S, Act, Activity, StopReason, decide, stop_reason
from podfleet_node.settings import NodeSettings

SETTINGS = NodeSettings()
OFF = {
    "empty_queue_checks": 0,
    "idle_timeout_s": 0,
    "server_unreachable_s": 0,
    "max_consecutive_failures": 0,
}


def _after_empty_claims(*at_s: float, wait_s: float = 60.0) -> Activity:
    activity = Activity.started(0.0)
    for moment_s in at_s:
        activity = activity.contact(moment_s).empty(moment_s, wait_s)
    return activity


@pytest.mark.parametrize(
    ("claims_at_s", "expected"),
    [
        ([], None),
        ([0], None),
        ([0, 5, 10, 55], None),  # polling more often does not count more
        ([0, 60], StopReason.EMPTY_QUEUE),
        ([0, 5, 10, 61], StopReason.EMPTY_QUEUE),
    ],
)
def test_an_empty_queue_ends_the_pod_after_two_checks_a_minute_apart(
    claims_at_s: list[float], expected: StopReason | None
) -> None:
    activity = _after_empty_claims(*claims_at_s)
    assert stop_reason(activity, SETTINGS, now_s=max(claims_at_s, default=0.0)) is expected


def test_a_job_between_two_empty_claims_starts_the_count_again() -> None:
    activity = _after_empty_claims(0).claimed(30).empty(61, 60.0).contact(61)
    assert stop_reason(activity, SETTINGS, now_s=61) is None
    assert stop_reason(activity.empty(121, 60.0).contact(121), SETTINGS, now_s=121) is StopReason.EMPTY_QUEUE


def test_an_empty_queue_ends_no_pod_that_still_holds_a_job() -> None:
    activity = _after_empty_claims(0, 61)
    assert stop_reason(activity.holding(1, 61), SETTINGS, now_s=61) is None
    done = activity.holding(1, 61).holding(0, 90).contact(90)
    assert stop_reason(done, SETTINGS, now_s=90) is StopReason.EMPTY_QUEUE, "no billed minute after the last job"


@pytest.mark.parametrize(
    ("activity", "now_s", "expected"),
    [
        (Activity.started(0).contact(599), 599, None),
        (Activity.started(0).contact(600), 600, StopReason.IDLE),
        (Activity.started(0).holding(1, 500).contact(1000), 1000, None),
        (Activity.started(0).holding(1, 500).holding(0, 600).contact(1100), 1100, None),
        (Activity.started(0), 299, None),
        (Activity.started(0), 300, StopReason.SERVER_UNREACHABLE),
        (Activity.started(0).holding(1, 10), 300, StopReason.SERVER_UNREACHABLE),
        (Activity.started(0).failed().failed(), 1, None),
        (Activity.started(0).failed().failed().failed(), 1, StopReason.FAILURES),
        (Activity.started(0).failed().failed().succeeded().failed(), 1, None),
        (Activity.started(0).failed().failed().failed().holding(2, 1), 1, StopReason.FAILURES),
    ],
)
def test_the_other_rules(activity: Activity, now_s: float, expected: StopReason | None) -> None:
    assert stop_reason(activity, SETTINGS, now_s=now_s) is expected


def test_a_drained_node_ends_itself_when_nobody_did() -> None:
    activity = Activity.started(0).drain().contact(5000)
    assert stop_reason(activity, SETTINGS, now_s=5000) is None
    drained = activity.drained(5000).contact(6000)
    assert stop_reason(drained, SETTINGS, now_s=5000 + DRAINED_END_S - 1) is None
    assert stop_reason(drained, SETTINGS, now_s=5000 + DRAINED_END_S) is StopReason.DRAINED


def test_the_empty_queue_rule_has_a_switch_of_its_own() -> None:
    settings = NodeSettings(stop_on_empty_queue=False)
    assert stop_reason(_after_empty_claims(0, 61), settings, now_s=61) is None


activities = st.builds(
    Activity,
    contact_at_s=st.floats(0, 1e6),
    work_at_s=st.floats(0, 1e6),
    asked_at_s=st.floats(0, 1e6),
    more_likely=st.booleans(),
    empty_checks=st.integers(0, 100),
    empty_check_at_s=st.floats(0, 1e6),
    failures_in_a_row=st.integers(0, 100),
    held=st.integers(0, 9),
    draining=st.booleans(),
)


@given(activity=activities, room=st.booleans(), wait_s=st.floats(0, 1e6))
def test_rules_that_are_off_never_end_a_pod(activity: Activity, room: bool, wait_s: float) -> None:
    now_s = 1e6 + wait_s
    for settings in (NodeSettings(keep_alive=True), NodeSettings.checked(OFF)):
        assert decide(activity, settings, room=room, now_s=now_s).act is not Act.STOP


@given(activity=activities, room=st.booleans(), now_s=st.floats(0, 2e6))
def test_no_claim_without_room_or_in_a_drain_and_waits_are_bounded(
    activity: Activity, room: bool, now_s: float
) -> None:
    action = decide(activity, NodeSettings(keep_alive=True), room=room, now_s=max(now_s, activity.asked_at_s))
    if activity.draining or not room:
        assert action.act is Act.WAIT
    assert 0 <= action.wait_s <= SETTINGS.poll_s


def test_a_claim_that_gave_a_job_is_followed_by_another_at_once_an_empty_one_by_a_pause() -> None:
    started = Activity.started(0)
    assert decide(started, SETTINGS, room=True, now_s=0).act is Act.CLAIM
    assert decide(started.claimed(0), SETTINGS, room=True, now_s=0).act is Act.CLAIM
    assert decide(started.empty(0, 60), SETTINGS, room=True, now_s=4).act is Act.WAIT
    assert decide(started.empty(0, 60), SETTINGS, room=True, now_s=5).act is Act.CLAIM
    assert decide(started.claimed(0).unanswered(1), SETTINGS, room=True, now_s=2).act is Act.WAIT
