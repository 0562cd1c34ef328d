"""Words of the wire between node, queue server and operator, and of a pod's log. A door for the operator's side.

The queue protocol is cast2md's; answers may hold more fields than we name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from podfleet_node.lines import HOST_KEY_LINE, PHASE_LINE, READY_LINE, Phase

__all__ = [
    "HOST_KEY_LINE",
    "KEY_HEADER",
    "PHASE_LINE",
    "READY_LINE",
    "ClaimAnswer",
    "CompleteBody",
    "FailBody",
    "HeartbeatBody",
    "NodeList",
    "NodeRow",
    "Phase",
    "ProgressBody",
    "QueueCounts",
    "QueueList",
    "QueueRow",
    "QueueStatus",
    "RegisterBody",
    "Registration",
]

KEY_HEADER = "X-Transcriber-Key"


class _Body(BaseModel):
    """What a node sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    """What a server answers; unknown fields are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RegisterBody(_Body):
    """POST /api/nodes/register."""

    name: str
    url: str
    whisper_model: str | None = None
    whisper_backend: str | None = None


class Registration(_Answer):
    """Its answer: who we are from now on."""

    node_id: str
    api_key: str = Field(repr=False)


class HeartbeatBody(_Body):
    """POST /api/nodes/{id}/heartbeat. Held jobs that `claimed_job_ids` does not list are released by the server."""

    name: str
    whisper_model: str | None = None
    whisper_backend: str | None = None
    current_job_id: int | None = None
    claimed_job_ids: tuple[int, ...] = ()


class ClaimAnswer(_Answer):
    """POST /api/nodes/{id}/claim."""

    has_job: bool = False
    job_id: int | None = None
    episode_id: int | None = None
    episode_title: str | None = None
    audio_url: str = ""


class ProgressBody(_Body):
    """POST /api/nodes/jobs/{job}/progress."""

    progress_percent: int = Field(ge=0, le=100)


class CompleteBody(_Body):
    """POST /api/nodes/jobs/{job}/complete."""

    transcript_text: str = Field(min_length=1)
    whisper_model: str | None = None


class FailBody(_Body):
    """POST /api/nodes/jobs/{job}/fail."""

    error_message: str
    retry: bool = True


class QueueCounts(_Answer):
    """One queue in GET /api/queue/status."""

    queued: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0


class QueueStatus(_Answer):
    """GET /api/queue/status."""

    transcribe_queue: QueueCounts = QueueCounts()


class QueueRow(_Answer):
    """One row of GET /api/queue or /api/queue/all; the last three only where the server tells the owner."""

    job_id: int
    episode_id: int | None = None
    status: str = ""
    attempts: int = 0
    max_attempts: int = 10
    next_retry_at: str | None = None
    error_message: str | None = None
    owner_node_id: str | None = None
    owner_name: str | None = None
    completed_by: str | None = None


class QueueList(_Answer):
    """GET /api/queue/all."""

    total: int = 0
    jobs: tuple[QueueRow, ...] = ()


class NodeRow(_Answer):
    """One row of GET /api/nodes."""

    id: str
    name: str
    status: str = ""
    last_heartbeat: str | None = None
    current_job_id: int | None = None
    held_jobs: int | None = None


class NodeList(_Answer):
    """GET /api/nodes."""

    total: int = 0
    nodes: tuple[NodeRow, ...] = ()
