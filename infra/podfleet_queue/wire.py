"""The words of cast2md's node protocol as the queue speaks them, and how rows become these words.

Called by the route modules only. Requests take unknown fields silently, as the original does; answers may carry more
fields than the original's (marked +).
"""

import time
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from podfleet_queue.jobs import Job, JobStatus
from podfleet_queue.store import JobRow, NodeRow, Snapshot
from podfleet_queue.tables import Episode, Event, EventValue, Node

JOB_TYPE = "transcribe"
LISTED_QUEUED_JOBS = 20


class Register(BaseModel):
    """`POST /api/nodes/register` and `POST /api/nodes` (priority: only there)."""

    name: str = Field(min_length=1)
    url: str
    whisper_model: str | None = None
    whisper_backend: str | None = None
    priority: int = Field(default=10, ge=-(2**31), lt=2**31)


class Registered(BaseModel):
    """The only time the key is shown."""

    node_id: str
    api_key: str
    message: str


class Beat(BaseModel):
    """`POST /api/nodes/{id}/heartbeat`; `claimed_job_ids` null and absent mean the same."""

    name: str | None = None
    whisper_model: str | None = None
    whisper_backend: str | None = None
    current_job_id: int | None = None
    claimed_job_ids: list[int] | None = None


class Claimed(BaseModel):
    """A job, or `has_job` false and nothing else."""

    job_id: int | None = None
    episode_id: int | None = None
    episode_title: str | None = None
    audio_url: str = ""
    has_job: bool = False


class Progress(BaseModel):
    """Any integer; clamped to 0-100."""

    progress_percent: int


class Complete(BaseModel):
    """A transcript in the format of the facts page's section 4."""

    transcript_text: str
    whisper_model: str | None = None


class Fail(BaseModel):
    """Why it failed, and whether another try makes sense."""

    error_message: str
    retry: bool = True


class Message(BaseModel):
    """The usual short answer."""

    message: str


class HeartbeatAnswer(BaseModel):
    """Fixed."""

    status: str = "ok"
    message: str = "Heartbeat received"


class Termination(BaseModel):
    """This server ends no pods: always `ignored`; what the node held has been released."""

    status: str
    message: str
    terminated: bool = False


class NodeOut(BaseModel):
    """One row of `GET /api/nodes`."""

    id: str
    name: str
    url: str
    whisper_model: str | None
    whisper_backend: str | None
    status: str
    last_heartbeat: str | None
    current_job_id: int | None
    priority: int
    held_jobs: int = Field(description="+ running jobs that the node owns")


class NodesOut(BaseModel):
    """`GET /api/nodes`."""

    nodes: list[NodeOut]
    total: int


class JobBrief(BaseModel):
    """A job inside the queue status."""

    job_id: int
    episode_id: int
    episode_title: str
    priority: int


class QueueCounts(BaseModel):
    """One of the five queues; only `transcribe_queue` is ever filled here."""

    queued: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    running_jobs: list[JobBrief] = []
    queued_jobs: list[JobBrief] = []
    claimable: int = Field(default=0, description="+ what claims would get now; `queued` also counts back-offs")
    claimable_audio_seconds: float = Field(default=0.0, description="+ known lengths only")


class QueueStatusOut(BaseModel):
    """`GET /api/queue/status`."""

    running: bool = True
    download_workers: int = 0
    transcript_download_workers: int = 0
    transcribe_workers: int = 0
    transcribe_workers_standby: bool = False
    embed_workers: int = 0
    download_queue: QueueCounts = QueueCounts()
    transcript_download_queue: QueueCounts = QueueCounts()
    transcribe_queue: QueueCounts
    embed_queue: QueueCounts = QueueCounts()


class JobOut(BaseModel):
    """A job's full row; `id` and `job_id` are the same number, as different pages of the original call it."""

    id: int
    job_id: int
    episode_id: int
    episode_title: str
    job_type: str = JOB_TYPE
    priority: int
    status: JobStatus
    attempts: int
    max_attempts: int
    progress_percent: int
    scheduled_at: str
    started_at: str | None
    completed_at: str | None
    next_retry_at: str | None
    error_message: str | None
    created_at: str
    is_stuck: bool = Field(description="running although its lease has run out: never, leases are taken back first")
    runtime_seconds: float | None
    owner_node_id: str | None = Field(description="+ only while running")
    owner_name: str | None = Field(description="+ only while running")
    completed_by: str | None = Field(description="+ name of the node whose text was accepted; stays for ever")
    audio_seconds: float | None = Field(description="+ null when unknown")


class JobsOut(BaseModel):
    """`GET /api/queue`."""

    jobs: list[JobOut]


class AllJobsOut(BaseModel):
    """`GET /api/queue/all`."""

    total: int
    stuck_count: int
    jobs: list[JobOut]


class EpisodeOut(BaseModel):
    """An episode; `status` is its newest job's."""

    id: int
    title: str
    filename: str
    status: str
    duration_seconds: float | None
    transcript_model: str | None
    transcript_sha256: str | None


class EpisodesOut(BaseModel):
    """+ `GET /api/episodes`."""

    episodes: list[EpisodeOut]
    total: int


class Added(BaseModel):
    """+ `POST /api/episodes`."""

    episode_id: int
    job_id: int


class EventOut(BaseModel):
    """+ One line of the record. `more` holds attempts, status, reason (the text's sha256 on job.completed)."""

    seq: int
    ts: float
    kind: str
    job_id: int | None
    episode_id: int | None
    node_id: str | None
    node_name: str | None
    more: dict[str, EventValue]


class EventsOut(BaseModel):
    """+ `GET /api/queue/events?since=`; `last_seq` is the next `since`."""

    events: list[EventOut]
    last_seq: int


def claimed(job: Job, episode: Episode) -> Claimed:
    """The answer to a claim that got a job."""
    return Claimed(
        job_id=job.id,
        episode_id=episode.id,
        episode_title=episode.title,
        audio_url=f"/api/nodes/jobs/{job.id}/audio",
        has_job=True,
    )


def node_out(row: NodeRow) -> NodeOut:
    """One node for people."""
    node = row.node
    return NodeOut(
        id=node.id,
        name=node.name,
        url=node.url,
        whisper_model=node.whisper_model,
        whisper_backend=node.whisper_backend,
        status=row.status,
        last_heartbeat=iso(node.last_heartbeat_s),
        current_job_id=node.current_job_id if row.held_jobs else None,
        priority=node.priority,
        held_jobs=row.held_jobs,
    )


def stale_node(node: Node) -> dict[str, str | None]:
    """One node of the stale list."""
    return {"id": node.id, "name": node.name, "last_heartbeat": iso(node.last_heartbeat_s)}


def queue_status(snapshot: Snapshot) -> QueueStatusOut:
    """The whole status from one look."""
    counts = snapshot.counts
    return QueueStatusOut(
        transcribe_queue=QueueCounts(
            queued=counts[JobStatus.QUEUED],
            running=counts[JobStatus.RUNNING],
            completed=counts[JobStatus.COMPLETED],
            failed=counts[JobStatus.FAILED],
            running_jobs=[_brief(row) for row in snapshot.running],
            queued_jobs=[_brief(row) for row in snapshot.queued[:LISTED_QUEUED_JOBS]],
            claimable=len(snapshot.claimable),
            claimable_audio_seconds=round(sum(row.episode.audio_s or 0.0 for row in snapshot.claimable), 3),
        )
    )


def job_out(row: JobRow, now_s: float | None = None) -> JobOut:
    """A job's full row."""
    job = row.job
    end_s = job.completed_at_s or (time.time() if now_s is None else now_s)
    return JobOut(
        id=job.id,
        job_id=job.id,
        episode_id=job.episode_id,
        episode_title=row.episode.title,
        priority=job.priority,
        status=job.status,
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        progress_percent=job.progress_percent,
        scheduled_at=_iso(job.scheduled_at_s),
        started_at=iso(job.started_at_s),
        completed_at=iso(job.completed_at_s),
        next_retry_at=iso(job.next_retry_at_s),
        error_message=job.error_message,
        created_at=_iso(job.created_at_s),
        is_stuck=False,
        runtime_seconds=None if job.started_at_s is None else round(end_s - job.started_at_s, 3),
        owner_node_id=row.owner.id if row.owner else None,
        owner_name=row.owner.name if row.owner else None,
        completed_by=row.completed_by,
        audio_seconds=row.episode.audio_s,
    )


def episode_out(episode: Episode, status: JobStatus | None) -> EpisodeOut:
    """An episode with the words of its state."""
    return EpisodeOut(
        id=episode.id,
        title=episode.title,
        filename=episode.filename,
        status=status.value if status else "audio_ready",
        duration_seconds=episode.audio_s,
        transcript_model=episode.transcript_model,
        transcript_sha256=episode.transcript_sha256,
    )


def event_out(event: Event) -> EventOut:
    """One event."""
    return EventOut(
        seq=event.seq,
        ts=event.ts,
        kind=event.kind,
        job_id=event.job_id,
        episode_id=event.episode_id,
        node_id=event.node_id,
        node_name=event.node_name,
        more=dict(event.more),
    )


def iso(at_s: float | None) -> str | None:
    """ISO text in UTC with its offset (the original sends naive local time, which nobody can compare)."""
    return None if at_s is None else _iso(at_s)


def day(at_s: float) -> str:
    """`YYYY-MM-DD`, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


def _brief(row: JobRow) -> JobBrief:
    return JobBrief(
        job_id=row.job.id, episode_id=row.job.episode_id, episode_title=row.episode.title, priority=row.job.priority
    )
