"""Values for the queue's tests."""

from podfleet_queue.jobs import Job, JobStatus, Policy

POLICY = Policy(lease_s=100, offline_after_s=60, max_attempts=3, retry_base_s=10, retry_cap_s=60)
TEXT = "*Language: en (100.0% confidence)*\n\n**[00:00]** The tide comes in twice a day.\n"


def a_job(**changes: object) -> Job:
    values: dict[str, object] = {
        "id": 1,
        "episode_id": 7,
        "created_at_s": 0.0,
        "scheduled_at_s": 0.0,
        "max_attempts": POLICY.max_attempts,
        "status": JobStatus.QUEUED,
    }
    return Job(**{**values, **changes})  # type: ignore[arg-type]
