"""Ready, waiting or failed: a table for the verdicts, properties for what no clock may change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet.ready import Cause, Record, Rules, Sight, State, Word, boot_deadline_s, judge, seen

RULES = Rules(deadline_s=300.0, min_cuda_version="12.8", absence_s=10.0)
BARE = Sight("RUNNING", cuda_version="12.8")
RUNS = replace(BARE, has_container=True)
OLD_DRIVER = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver"

seconds = st.floats(0, 10_000)
sights = st.builds(
    Sight,
    status=st.sampled_from(["", "PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR"]),
    live=st.booleans(),
    has_container=st.booleans(),
    cuda_version=st.sampled_from(["", "12.4", "12.8", "13.0", "odd"]),
    word=st.sampled_from(Word),
    bare_s=seconds,
    quiet_s=seconds,
    absent_s=seconds,
    system_log=st.lists(st.sampled_from(["pulling image", OLD_DRIVER]), max_size=3).map(tuple),
)
looks = st.lists(st.tuples(st.sampled_from(["", "pod1", "pod2"]), st.booleans(), st.floats(0.1, 60)), max_size=20)


@pytest.mark.parametrize(
    ("image_gb", "at_most_s", "deadline_s"), [(8, 1200, 300), (30, 1200, 420), (100, 1200, 1200), (8, 60, 60)]
)
def test_a_bigger_image_may_take_longer(image_gb: float, at_most_s: float, deadline_s: float) -> None:
    assert boot_deadline_s(image_gb, at_most_s=at_most_s) == deadline_s


@pytest.mark.parametrize(
    ("sight", "state", "cause"),
    [
        (replace(RUNS, word=Word.HEARD), State.READY, None),
        (replace(RUNS, word=Word.HEARD, quiet_s=900.0, cuda_version="12.4"), State.READY, None),
        (replace(BARE, word=Word.HEARD), State.WAITING, None),  # a heartbeat of the pod that was there before
        (replace(BARE, status="PROVISIONING", bare_s=299.0), State.WAITING, None),
        (replace(BARE, status="STARTING", bare_s=300.0), State.FAILED, Cause.NO_CONTAINER),
        (replace(BARE, bare_s=1.0, system_log=(OLD_DRIVER,)), State.FAILED, Cause.DRIVER),
        (replace(BARE, bare_s=1.0, cuda_version="12.4"), State.FAILED, Cause.DRIVER),
        (replace(BARE, bare_s=1.0, cuda_version=""), State.WAITING, None),
        (replace(RUNS, status="ERROR", live=False, word=Word.HEARD), State.FAILED, Cause.ENDED),
        (replace(RUNS, word=Word.NEVER, quiet_s=299.0), State.WAITING, None),
        (replace(RUNS, word=Word.NEVER, quiet_s=300.0), State.FAILED, Cause.SILENT),
        (replace(BARE, word=Word.NEVER, quiet_s=300.0, bare_s=2.0), State.FAILED, Cause.SILENT),  # it comes and goes
        (replace(RUNS, word=Word.LOST, quiet_s=300.0), State.FAILED, Cause.LOST),
        (replace(RUNS, word=Word.UNKNOWN, quiet_s=300.0), State.FAILED, Cause.UNSEEN),
        (Sight("", absent_s=0.0), State.WAITING, None),
        (Sight("", absent_s=9.0), State.WAITING, None),
        (Sight("", absent_s=10.0), State.FAILED, Cause.GONE),
    ],
)
def test_verdicts(sight: Sight, state: State, cause: Cause | None) -> None:
    verdict = judge(sight, RULES)
    assert (verdict.state, verdict.cause) == (state, cause)


def test_the_end_of_the_system_log_is_in_the_reason() -> None:
    lines = ("pulling image", "", "error creating container: no space left on device")
    reason = judge(replace(BARE, status="ERROR", live=False, system_log=lines), RULES).reason
    assert (
        reason == "it is ERROR; its system log ends: pulling image | error creating container: no space left on device"
    )


@given(sights)
def test_a_verdict_says_why_and_only_a_pod_without_a_working_node_is_ended(sight: Sight) -> None:
    verdict = judge(sight, RULES)
    assert bool(verdict.reason) == (verdict.state is State.FAILED) == (verdict.cause is not None)
    may_work = sight.live and sight.has_container and sight.word in (Word.HEARD, Word.LOST, Word.UNKNOWN)
    if verdict.ends and sight.status and may_work:
        assert verdict.cause is Cause.DRIVER or sight.bare_s >= RULES.deadline_s


@given(sights, seconds)
def test_time_makes_no_pod_ready_and_no_failed_one_wait_again(sight: Sight, more_s: float) -> None:
    later = replace(
        sight, bare_s=sight.bare_s + more_s, quiet_s=sight.quiet_s + more_s, absent_s=sight.absent_s + more_s
    )
    before, after = judge(sight, RULES).state, judge(later, RULES).state
    assert after is before or (before is State.WAITING and after is State.FAILED)


@given(sights)
def test_before_the_deadline_no_living_pod_fails_for_the_time_it_takes(sight: Sight) -> None:
    early = replace(sight, bare_s=299.0, quiet_s=299.0, live=True, status=sight.status or "RUNNING")
    assert judge(early, RULES).cause in (None, Cause.DRIVER)


@given(sights)
def test_a_pod_that_is_heard_is_ready_however_long_it_took(sight: Sight) -> None:
    heard = replace(sight, status="RUNNING", live=True, has_container=True, word=Word.HEARD)
    assert judge(heard, RULES).state is State.READY


@given(looks)
def test_a_record_knows_each_time_no_longer_than_it_has_looked(found: list[tuple[str, bool, float]]) -> None:
    record, now_s = Record(), 0.0
    for pod_id, has_container, step_s in found:
        now_s += step_s
        record = seen(record, pod_id, has_container=has_container, age_s=0.0, now_s=now_s)
        assert all(0 <= age_s < now_s for age_s in record.times(now_s))
        assert (record.absent_since_s is None) == bool(pod_id)
        if pod_id:
            assert record.pod_id == pod_id
            assert (record.bare_since_s is None) == has_container


def test_a_container_that_comes_and_goes_is_quiet_since_its_first_start() -> None:
    record = Record()
    for now_s, has_container in ((10.0, True), (20.0, False), (30.0, True), (40.0, False)):
        record = seen(record, "pod1", has_container=has_container, age_s=5.0, now_s=now_s)
    assert record.times(50.0) == (10.0, 40.0, 0.0)


def test_another_pod_in_the_slot_begins_anew_as_old_as_it_is() -> None:
    record = seen(Record(), "pod1", has_container=False, age_s=0.0, now_s=10.0)
    record = seen(record, "pod2", has_container=False, age_s=7.0, now_s=400.0)
    assert record.times(400.0).bare_s == 7.0
