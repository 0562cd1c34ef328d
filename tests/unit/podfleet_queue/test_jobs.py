"""The job state machine: single moves as a table, and any order of moves as a property."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.podfleet_queue.strategies import POLICY, a_job

from podfleet_queue import jobs
from podfleet_queue.jobs import Job, JobStatus, Step

NODES = st.sampled_from(["a", "b", "c"])


def claimed(node: str = "a", now_s: float = 1000.0, **changes: object) -> Job:
    return jobs.claim(a_job(**changes), node, now_s, POLICY).job


def test_a_claim_makes_one_owner_a_lease_and_an_attempt() -> None:
    job = claimed(now_s=5)
    assert (job.status, job.owner_id, job.lease_until_s, job.attempts) == (JobStatus.RUNNING, "a", 105, 1)


def test_a_release_gives_the_attempt_back_and_a_loss_does_not() -> None:
    assert jobs.release(claimed(), "drain").job.attempts == 0
    assert jobs.lose(claimed(), "gone").job.attempts == 1
    assert jobs.is_claimable(jobs.release(claimed(), "drain").job, 1000)
    assert jobs.is_claimable(jobs.lose(claimed(), "gone").job, 1000)


def test_a_job_that_keeps_losing_its_nodes_ends_as_failed() -> None:
    step = jobs.lose(claimed(attempts=2), "gone")
    assert (step.job.status, step.job.owner_id, step.event) == (JobStatus.FAILED, None, "job.failed")
    assert jobs.is_claimable(jobs.retry_by_hand(step.job).job, 0)


def test_renewal_never_shortens_a_lease() -> None:
    job = claimed(now_s=1000)
    assert jobs.renew(job, 1050, POLICY).job.lease_until_s == 1150
    assert jobs.renew(job, 900, POLICY).job.lease_until_s == 1100


@pytest.mark.parametrize(("now_s", "expired"), [(1000, False), (1099.9, False), (1100, True), (5000, True)])
def test_a_lease_runs_out_when_its_time_has_come(now_s: float, expired: bool) -> None:
    assert jobs.is_expired(claimed(now_s=1000), now_s) is expired


@pytest.mark.parametrize(("percent", "shown"), [(-5, 0), (0, 0), (42, 42), (100, 100), (10**30, 100)])
def test_progress_is_clamped_and_renews_the_lease(percent: int, shown: int) -> None:
    job = jobs.report_progress(claimed(now_s=1000), percent, 1060, POLICY).job
    assert (job.progress_percent, job.lease_until_s) == (shown, 1160)


def test_backoff_is_cast2md_s_five_minutes_times_five_up_to_twelve_hours() -> None:
    minutes = [jobs.backoff_s(n, jobs.Policy()) / 60 for n in (1, 2, 3, 4, 5, 6, 10_000)]
    assert minutes == [5, 25, 125, 625, 720, 720, 720]


def test_a_failure_waits_before_the_next_try_and_the_last_one_is_final() -> None:
    step = jobs.fail(claimed(), "no decoder", retry=True, now_s=1000, policy=POLICY)
    assert (step.job.status, step.job.next_retry_at_s, step.job.error_message) == (JobStatus.QUEUED, 1010, "no decoder")
    assert not jobs.is_claimable(step.job, 1009.9)
    assert jobs.is_claimable(step.job, 1010)
    last = jobs.fail(claimed(attempts=2), "no decoder", retry=True, now_s=1000, policy=POLICY)
    assert last.job.status is JobStatus.FAILED


def test_a_failure_without_retry_is_final_at_once() -> None:
    assert jobs.fail(claimed(), "gone", retry=False, now_s=0, policy=POLICY).job.status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("transcript", "counts"),
    [
        ("", False),
        ("  \n\n", False),
        ("*Language: en (100.0% confidence)*\n\n", False),
        ("# Title\n\n*Language: en*\n\n**[00:00]** \n\n**[00:09]** ... \n", False),
        ("**[00:00]** word", True),
        ("*Language: de (90%)*\n\n**[00:00]** Gr\u00fc\u00dfe\n", True),
        ("plain words", True),
    ],
)
def test_a_transcript_needs_a_word_besides_its_frame(transcript: str, counts: bool) -> None:
    assert jobs.has_words(transcript) is counts


class AnyOrderOfMoves(RuleBasedStateMachine):
    """Nodes, people and time do anything in any order; the promises of the module hold after each move."""

    @initialize()
    def start(self) -> None:
        self.job = a_job()
        self.now_s = 0.0
        self.handed_out = self.given_back = 0
        self.completed: Job | None = None

    def _apply(self, step: Step) -> None:
        assert step.event is not None or step.job.status is self.job.status  # no change of status goes unrecorded
        self.job = step.job

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(node=NODES)
    def claim(self, node: str) -> None:
        if jobs.is_claimable(self.job, self.now_s):
            self._apply(jobs.claim(self.job, node, self.now_s, POLICY))
            self.handed_out += 1

    @rule(node=NODES)
    def renew(self, node: str) -> None:
        if jobs.holds(self.job, node):
            self._apply(jobs.renew(self.job, self.now_s, POLICY))

    @rule(node=NODES, percent=st.integers())
    def progress(self, node: str, percent: int) -> None:
        if jobs.holds(self.job, node):
            self._apply(jobs.report_progress(self.job, percent, self.now_s, POLICY))

    @rule(node=NODES)
    def release(self, node: str) -> None:
        if jobs.holds(self.job, node):
            self.given_back += self.job.status is JobStatus.RUNNING
            self._apply(jobs.release(self.job, "by its node"))

    @rule()
    def sweep(self) -> None:
        if jobs.is_expired(self.job, self.now_s):
            self._apply(jobs.lose(self.job, "lease ran out"))

    @rule(node=NODES)
    def node_is_gone(self, node: str) -> None:
        if jobs.holds(self.job, node):
            self._apply(jobs.lose(self.job, "node deregistered"))

    @rule(node=NODES, retry=st.booleans())
    def fail(self, node: str, retry: bool) -> None:
        if jobs.holds(self.job, node):
            self._apply(jobs.fail(self.job, "x", retry=retry, now_s=self.now_s, policy=POLICY))

    @rule(node=NODES)
    def complete(self, node: str) -> None:
        if jobs.holds(self.job, node):
            self._apply(jobs.complete(self.job, self.now_s))
            self.completed = self.completed or self.job

    @rule()
    def retry_by_hand(self) -> None:
        if self.job.status is JobStatus.FAILED:
            self.handed_out = self.given_back = 0
        self._apply(jobs.retry_by_hand(self.job))

    @invariant()
    def running_means_one_owner_and_a_lease(self) -> None:
        running = self.job.status is JobStatus.RUNNING
        assert running == (self.job.lease_until_s is not None)
        assert not running or self.job.owner_id is not None
        if self.job.status in {JobStatus.QUEUED, JobStatus.FAILED}:
            assert self.job.owner_id is None

    @invariant()
    def completed_is_for_ever(self) -> None:
        if self.completed is not None:
            assert self.job == self.completed

    @invariant()
    def attempts_are_hand_outs_not_given_back(self) -> None:
        assert self.job.attempts == self.handed_out - self.given_back <= self.job.max_attempts

    @invariant()
    def a_job_is_never_stuck(self) -> None:
        """From any state that is not final, waiting alone leads to a claimable or failed job."""
        later_s = self.now_s + POLICY.lease_s + POLICY.retry_cap_s
        job = self.job
        if jobs.is_expired(job, later_s):
            job = jobs.lose(job, "lease ran out").job
        assert jobs.is_claimable(job, later_s) or job.status in {JobStatus.COMPLETED, JobStatus.FAILED}


TestAnyOrderOfMoves = AnyOrderOfMoves.TestCase
TestAnyOrderOfMoves.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
