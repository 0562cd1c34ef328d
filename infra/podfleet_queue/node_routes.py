"""The calls of a node: register, heartbeat, claim, audio, progress, complete, fail, release; and nodes for people.

Mounted by `server.create_app`. The order of checks is cast2md's: header missing 401, body or path 422, unknown 404,
wrong key 401 (`/api/nodes/{id}/...`), or header 401, 422, unknown key 401, unknown job 404, not the owner 403
(`/api/nodes/jobs/{job}/...`). FastAPI solves the header's dependency before it reports the body's errors.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import FileResponse

from podfleet_queue import wire
from podfleet_queue.errors import BadKeyError, NotFoundError
from podfleet_queue.files import download_name
from podfleet_queue.store import Heartbeat, Store

router = APIRouter(prefix="/api/nodes")


def get_store(request: Request) -> Store:
    """The store of this application."""
    store = request.app.state.store
    assert isinstance(store, Store)  # noqa: S101 - set by create_app
    return store


async def require_key(x_transcriber_key: Annotated[str | None, Header()] = None) -> str:
    """The header's value; 401 before anything else when it is missing."""
    if not x_transcriber_key:
        raise BadKeyError("Missing X-Transcriber-Key header")
    return x_transcriber_key


StoreDep = Annotated[Store, Depends(get_store)]
KeyDep = Annotated[str, Depends(require_key)]
Hours = Annotated[float, Query(ge=0, allow_inf_nan=False)]
JobId = Annotated[int, Path(ge=-(2**63), lt=2**63)]


@router.post("/register")
def register(body: wire.Register, store: StoreDep) -> wire.Registered:
    """A new node, or an offline one again under a new key."""
    got = store.register(body.name, body.url, body.whisper_model, body.whisper_backend, body.priority)
    how = "re-registered (reused existing entry)" if got.reused else "registered successfully"
    return wire.Registered(node_id=got.node.id, api_key=got.api_key, message=f"Node '{body.name}' {how}")


@router.post("")
def add_node(body: wire.Register, store: StoreDep) -> wire.Registered:
    """The same as register; the original has both."""
    return register(body, store)


@router.get("")
def list_nodes(store: StoreDep) -> wire.NodesOut:
    """Every registered node."""
    rows = [wire.node_out(row) for row in store.nodes()]
    return wire.NodesOut(nodes=rows, total=len(rows))


@router.get("/stale")
def list_stale(store: StoreDep, offline_hours: Hours = 24.0) -> dict[str, object]:
    """Nodes offline for that long, or never seen."""
    nodes = [wire.stale_node(node) for node in store.stale_nodes(offline_hours * 3600)]
    return {"stale_count": len(nodes), "threshold_hours": offline_hours, "nodes": nodes}


@router.delete("/stale")
def delete_stale(store: StoreDep, offline_hours: Hours = 24.0) -> dict[str, object]:
    """Deregister them; their jobs go back."""
    count = len(store.stale_nodes(offline_hours * 3600, delete=True))
    return {"deleted_count": count, "message": f"Deleted {count} stale nodes"}


@router.delete("/{node_id}")
def delete_node(node_id: str, store: StoreDep) -> wire.Message:
    """Deregister a node; its jobs go back at once."""
    store.delete_node(node_id)
    return wire.Message(message="Node deleted")


@router.post("/{node_id}/heartbeat")
def heartbeat(node_id: str, body: wire.Beat, key: KeyDep, store: StoreDep) -> wire.HeartbeatAnswer:
    """The node lives; see `Store.heartbeat`."""
    held = None if body.claimed_job_ids is None else frozenset(body.claimed_job_ids)
    beat = Heartbeat(body.current_job_id, held, body.name, body.whisper_model, body.whisper_backend)
    store.heartbeat(store.node_with(node_id, key), beat)
    return wire.HeartbeatAnswer()


@router.post("/{node_id}/claim")
def claim(node_id: str, key: KeyDep, store: StoreDep) -> wire.Claimed:
    """The next job, or none."""
    got = store.claim(store.node_with(node_id, key))
    return wire.claimed(*got) if got else wire.Claimed()


@router.post("/{node_id}/claim-embed")
def claim_embed(node_id: str, key: KeyDep, store: StoreDep) -> dict[str, object]:
    """There is never embedding work here; a stock node asks for it when idle."""
    store.node_with(node_id, key)
    return {"job_id": None, "episode_id": None, "episode_title": None, "transcript_url": "", "has_job": False}


@router.post("/{node_id}/request-termination")
def request_termination(node_id: str, key: KeyDep, store: StoreDep) -> wire.Termination:
    """Ends no pod, but takes back what the node holds (the original leaks it)."""
    released = store.release_all(store.node_with(node_id, key))
    return wire.Termination(status="ignored", message=f"This server ends no pods; {released} jobs released")


@router.get("/jobs/{job_id}/audio")
def audio(job_id: JobId, key: KeyDep, store: StoreDep) -> FileResponse:
    """The audio file, whole or by Range; always called audio/mpeg, the true extension is in the file name."""
    _, episode = store.job_of(store.node_of(key), job_id)
    path = store.folder.audio / episode.audio_file
    if not path.is_file():
        raise NotFoundError("Audio file not found on disk")
    name = download_name(wire.day(episode.added_at_s), episode.title, episode.audio_file)
    return FileResponse(path, media_type="audio/mpeg", filename=name)


@router.post("/jobs/{job_id}/progress")
def progress(job_id: JobId, body: wire.Progress, key: KeyDep, store: StoreDep) -> wire.Message:
    """Display, lease renewal and a cheap question whether the job is still ours."""
    store.progress(store.node_of(key), job_id, body.progress_percent)
    return wire.Message(message="Progress updated")


@router.post("/jobs/{job_id}/complete")
def complete(job_id: JobId, body: wire.Complete, key: KeyDep, store: StoreDep) -> wire.Message:
    """Deliver the text; repeating is safe, the first accepted text stays."""
    store.complete(store.node_of(key), job_id, body.transcript_text, body.whisper_model)
    return wire.Message(message="Job completed successfully")


@router.post("/jobs/{job_id}/fail")
def fail(job_id: JobId, body: wire.Fail, key: KeyDep, store: StoreDep) -> wire.Message:
    """Could not be done; without effect on a completed job."""
    store.fail(store.node_of(key), job_id, body.error_message, retry=body.retry)
    return wire.Message(message="Job marked as failed")


@router.post("/jobs/{job_id}/release")
def release(job_id: JobId, key: KeyDep, store: StoreDep) -> wire.Message:
    """Back to the queue unharmed; the attempt is given back."""
    store.release(store.node_of(key), job_id)
    return wire.Message(message="Job released back to queue")
