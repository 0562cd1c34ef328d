"""What people, the reconciler and tests ask: the queue's status, jobs, events, episodes, health.

Mounted by `server.create_app`. No authentication, as in the original: the server listens on loopback unless told
otherwise. Fixed paths come before `/{job_id}`.
"""

import os
from pathlib import Path as FilePath
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from podfleet_queue import wire
from podfleet_queue.audio import length_s
from podfleet_queue.errors import ConflictError
from podfleet_queue.files import safe_suffix
from podfleet_queue.jobs import JobStatus
from podfleet_queue.node_routes import JobId, StoreDep

router = APIRouter(prefix="/api")

Limit = Annotated[int, Query(ge=0, le=1_000_000)]
Since = Annotated[int, Query(ge=0, lt=2**63)]


class Enqueue(BaseModel):
    """`POST /api/queue/episodes/{id}/transcribe`."""

    priority: int = Field(default=10, ge=-(2**31), lt=2**31)


@router.get("/health")
def health(store: StoreDep) -> JSONResponse:
    """200 while the database takes transactions and the folder is there, else 503."""
    database, storage = store.is_healthy(), store.folder.transcripts.is_dir()
    sound = database and storage
    return JSONResponse(
        status_code=200 if sound else 503,
        content={
            "status": "healthy" if sound else "unhealthy",
            "database": "ok" if database else "error",
            "storage": "ok" if storage else "error",
            "pool": {"min_size": 1, "max_size": 1, "used": 0, "available": 1},
            "message": None if sound else "the queue folder cannot be used",
            "build": "podfleet-queue",
        },
    )


@router.get("/queue/status")
def queue_status(store: StoreDep) -> wire.QueueStatusOut:
    """Counts and the jobs at work."""
    return wire.queue_status(store.snapshot())


@router.get("/queue")
def due_jobs(store: StoreDep, job_type: str | None = None, limit: Limit = 100) -> wire.JobsOut:
    """Jobs that claims would get now, in that order."""
    rows = [] if job_type not in {None, wire.JOB_TYPE} else store.snapshot().claimable[:limit]
    return wire.JobsOut(jobs=[wire.job_out(row) for row in rows])


@router.get("/queue/all")
def all_jobs(
    store: StoreDep, status: JobStatus | None = None, job_type: str | None = None, limit: Limit = 100
) -> wire.AllJobsOut:
    """Jobs of any or one status, oldest first."""
    rows = [] if job_type not in {None, wire.JOB_TYPE} else store.job_rows(status, -1)
    return wire.AllJobsOut(total=len(rows), stuck_count=0, jobs=[wire.job_out(row) for row in rows[:limit]])


@router.get("/queue/events")
def events(store: StoreDep, since: Since = 0, limit: Limit = 10_000) -> wire.EventsOut:
    """Every hand-out, return and completion after `since`."""
    found = [wire.event_out(event) for event in store.events(since, limit)]
    return wire.EventsOut(events=found, last_seq=found[-1].seq if found else since)


@router.get("/queue/{job_id}")
def one_job(job_id: JobId, store: StoreDep) -> wire.JobOut:
    """One job."""
    return wire.job_out(store.job_row(job_id))


@router.delete("/queue/{job_id}")
def delete_job(job_id: JobId, store: StoreDep) -> wire.Message:
    """Remove a queued or failed job."""
    store.delete_job(job_id)
    return wire.Message(message="Job deleted")


@router.post("/queue/{job_id}/reset")
def reset_job(job_id: JobId, store: StoreDep) -> wire.Message:
    """Take a running job from its node."""
    store.reset(job_id)
    return wire.Message(message="Job reset")


@router.post("/queue/{job_id}/retry")
def retry_job(job_id: JobId, store: StoreDep) -> wire.Message:
    """A failed job gets all its attempts again."""
    store.retry(job_id)
    return wire.Message(message="Job queued for retry")


@router.post("/queue/episodes/{episode_id}/transcribe")
def enqueue(episode_id: JobId, store: StoreDep, body: Enqueue | None = None) -> wire.Added:
    """A new job for an episode that has no live or completed one (409 otherwise)."""
    job = store.enqueue(episode_id, (body or Enqueue()).priority)
    return wire.Added(episode_id=episode_id, job_id=job.id)


@router.post("/episodes")
async def add_episode(
    request: Request,
    store: StoreDep,
    filename: Annotated[str, Query(min_length=1, max_length=255)],
    title: Annotated[str | None, Query(max_length=500)] = None,
) -> wire.Added:
    """Queue one audio file: the raw bytes are the body."""
    upload = store.folder.new_upload()
    try:
        if await _receive(request, upload) == 0:
            raise ConflictError("Audio is empty", status=422)
        audio_s = await to_thread.run_sync(length_s, upload)
        base = FilePath(filename).name
        shown = title or FilePath(base).stem
        ids = await to_thread.run_sync(store.add_episode, upload, shown, base, safe_suffix(base), audio_s)
    finally:
        upload.unlink(missing_ok=True)
    return wire.Added(episode_id=ids[0], job_id=ids[1])


@router.get("/episodes")
def list_episodes(store: StoreDep) -> wire.EpisodesOut:
    """All episodes, oldest first."""
    found = [wire.episode_out(*row) for row in store.episodes()]
    return wire.EpisodesOut(episodes=found, total=len(found))


@router.get("/episodes/{episode_id}")
def one_episode(episode_id: JobId, store: StoreDep) -> wire.EpisodeOut:
    """One episode."""
    return wire.episode_out(*store.episode(episode_id))


@router.get("/episodes/{episode_id}/transcript")
def transcript(episode_id: JobId, store: StoreDep) -> FileResponse:
    """The accepted transcript; 404 until there is one."""
    return FileResponse(store.transcript_path(episode_id), media_type="text/markdown; charset=utf-8")


async def _receive(request: Request, upload: FilePath) -> int:
    """Write the body to a file as it arrives; on disk when this returns. Returns its length in bytes."""
    size_bytes = 0
    async with await anyio.open_file(upload, "wb") as handle:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            await handle.write(chunk)
        await handle.flush()
        await to_thread.run_sync(os.fsync, handle.wrapped.fileno())
    return size_bytes
