"""The job state machine: who may hold a job, until when, and what each message does to it. PURE.

Called by `store`, which loads a job, asks here, and writes the answer in one transaction. A function returns a `Step`:
the job afterwards and the word under which the change is recorded. Promises (tests hold them):
- a running job has one owner and a lease; a queued one has neither;
- completed is final: no later message changes the job, the first accepted text wins;
- `attempts` counts hand-outs that were not given back. A release gives its attempt back; a lost job (lease run out,
  node gone, missing in its node's heartbeat) does not, so that a job that kills its node cannot go round for ever.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands; the words are the wire's."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Policy:
    """The server's limits; defaults are cast2md's numbers."""

    lease_s: float = 300.0
    offline_after_s: float = 60.0
    max_attempts: int = 10
    retry_base_s: float = 300.0
    retry_cap_s: float = 43200.0


@dataclass(frozen=True, slots=True)
class Job:
    """One transcription of one episode."""

    id: int
    episode_id: int
    created_at_s: float
    scheduled_at_s: float
    max_attempts: int
    status: JobStatus = JobStatus.QUEUED
    priority: int = 10
    attempts: int = 0
    progress_percent: int = 0
    owner_id: str | None = None
    lease_until_s: float | None = None
    started_at_s: float | None = None
    next_retry_at_s: float | None = None
    completed_at_s: float | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A job after a message, and the event to record (None: nothing worth recording)."""

    job: Job
    event: str | None
    reason: str = ""


def is_claimable(job: Job, now_s: float) -> bool:
    """Whether a claim may hand this job out at `now_s`."""
    due = job.next_retry_at_s is None or job.next_retry_at_s <= now_s
    return job.status is JobStatus.QUEUED and due and job.attempts < job.max_attempts


def holds(job: Job, node_id: str) -> bool:
    """Whether the node may speak for this job: it is the owner, or the one that completed it."""
    return job.owner_id == node_id


def claim(job: Job, node_id: str, now_s: float, policy: Policy) -> Step:
    """Hand the job out; the caller has checked `is_claimable`."""
    taken = replace(
        job,
        status=JobStatus.RUNNING,
        owner_id=node_id,
        attempts=job.attempts + 1,
        progress_percent=0,
        started_at_s=now_s,
        lease_until_s=now_s + policy.lease_s,
        next_retry_at_s=None,
    )
    return Step(taken, "job.claimed")


def renew(job: Job, now_s: float, policy: Policy) -> Step:
    """Extend the lease of a running job; it never gets shorter."""
    if job.status is not JobStatus.RUNNING:
        return Step(job, None)
    until_s = max(job.lease_until_s or 0.0, now_s + policy.lease_s)
    return Step(replace(job, lease_until_s=until_s), None)


def report_progress(job: Job, percent: int, now_s: float, policy: Policy) -> Step:
    """Note the progress (clamped to 0-100) and renew the lease."""
    if job.status is not JobStatus.RUNNING:
        return Step(job, None)
    return renew(replace(job, progress_percent=min(100, max(0, percent))), now_s, policy)


def release(job: Job, reason: str) -> Step:
    """The owner hands the job back unharmed: claimable at once, the attempt is given back."""
    if job.status is not JobStatus.RUNNING:
        return Step(job, None)
    back = replace(_unowned(job), attempts=max(0, job.attempts - 1), error_message=None)
    return Step(back, "job.released", reason)


def lose(job: Job, reason: str) -> Step:
    """The owner is gone or has forgotten the job: back in the queue, or failed when the attempts are used up."""
    if job.status is not JobStatus.RUNNING:
        return Step(job, None)
    if job.attempts < job.max_attempts:
        return Step(_unowned(job), "job.lost", reason)
    dead = replace(_unowned(job), status=JobStatus.FAILED, error_message="Max attempts exceeded")
    return Step(dead, "job.failed", reason)


def is_expired(job: Job, now_s: float) -> bool:
    """Whether the lease of a running job has run out."""
    return job.status is JobStatus.RUNNING and (job.lease_until_s or 0.0) <= now_s


def fail(job: Job, error_message: str, *, retry: bool, now_s: float, policy: Policy) -> Step:
    """The owner could not do it: again after a back-off, or failed for good. A completed job stays completed."""
    if job.status is JobStatus.COMPLETED:
        return Step(job, "job.fail_ignored", "already completed")
    if job.status is not JobStatus.RUNNING:
        return Step(job, None)
    failed = replace(_unowned(job), error_message=error_message)
    if retry and job.attempts < job.max_attempts:
        again_at_s = now_s + backoff_s(job.attempts, policy)
        return Step(replace(failed, next_retry_at_s=again_at_s), "job.retry", error_message)
    return Step(replace(failed, status=JobStatus.FAILED), "job.failed", error_message)


def backoff_s(attempts: int, policy: Policy) -> float:
    """Wait after the n-th failed attempt: base x 5^(n-1), capped (5, 25, 125, 625, 720, ... minutes by default)."""
    exponent = min(max(attempts, 1) - 1, 16)
    return min(policy.retry_base_s * 5.0**exponent, policy.retry_cap_s)


def complete(job: Job, now_s: float) -> Step:
    """The owner delivered a text. Of several deliveries the first wins; the owner is kept, so that it may repeat it."""
    if job.status is JobStatus.COMPLETED:
        return Step(job, "job.complete_ignored", "already completed")
    done = replace(
        job,
        status=JobStatus.COMPLETED,
        progress_percent=100,
        completed_at_s=now_s,
        lease_until_s=None,
        error_message=None,
    )
    return Step(done, "job.completed")


def retry_by_hand(job: Job) -> Step:
    """A person gives a failed job all its attempts again."""
    if job.status is not JobStatus.FAILED:
        return Step(job, None)
    fresh = replace(_unowned(job), attempts=0, error_message=None, completed_at_s=None)
    return Step(fresh, "job.retried", "by hand")


def has_words(transcript: str) -> bool:
    """Whether anything remains of a transcript without its title, its language line and its time marks."""
    body = re.sub(r"\*\*\[[\d:]*\]\*\*", " ", transcript)
    lines = (line.strip() for line in body.splitlines())
    kept = (line for line in lines if not line.startswith(("# ", "*Language:")))
    return any(char.isalnum() for line in kept for char in line)


def _unowned(job: Job) -> Job:
    return replace(
        job,
        status=JobStatus.QUEUED,
        owner_id=None,
        lease_until_s=None,
        started_at_s=None,
        next_retry_at_s=None,
        progress_percent=0,
    )
