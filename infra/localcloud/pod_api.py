"""`/v2/pods*`: create, list, look, change, act, end, and the logs as server-sent events."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from localcloud import runpod_wire as wire
from localcloud.cloud import Cloud
from localcloud.model import Pod
from localcloud.podlog import LogLine, PodLog
from localcloud.wire_base import bad_query, instant, page

LOG_IDLE_S = 15.0
MAX_TAIL = 5000
SOURCES = ("container", "system")
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def pod_routes(cloud: Cloud) -> APIRouter:
    """Everything about pods."""
    routes = APIRouter(prefix="/v2/pods")

    @routes.get("")
    async def list_pods(cursor: str | None = None) -> dict[str, Any]:
        return page(
            "pods",
            cloud.listed(),
            wire.pod_json,
            serial=lambda pod: pod.serial,
            cursor=cursor,
            size=cloud.facts.page_size,
        )

    @routes.post("", status_code=201)
    async def create_pod(body: wire.CreatePod) -> dict[str, Any]:
        return wire.pod_json(cloud.create(body.to_request(cloud.account)))

    @routes.get("/{pod_id}")
    async def get_pod(pod_id: str) -> dict[str, Any]:
        return wire.pod_json(cloud.get(pod_id))

    @routes.patch("/{pod_id}")
    async def update_pod(pod_id: str, body: wire.PatchPod) -> dict[str, Any]:
        return wire.pod_json(_update(cloud, pod_id, body))

    @routes.delete("/{pod_id}", status_code=204)
    async def delete_pod(pod_id: str) -> Response:
        cloud.delete(pod_id)
        return Response(status_code=204)

    @routes.post("/{pod_id}/action")
    async def act(pod_id: str, body: wire.Action) -> Response:
        pod = cloud.act(pod_id, body.action)
        return JSONResponse(wire.pod_json(pod)) if pod else Response(status_code=204)

    @routes.get("/{pod_id}/logs")
    async def get_pod_logs(
        request: Request, pod_id: str, source: str | None = None, tail: int = 100, since: str | None = None
    ) -> Response:
        cloud.get(pod_id)
        sources = _sources(source)
        if not 0 <= tail <= MAX_TAIL:
            raise bad_query(f"tail: must be 0 to {MAX_TAIL}")
        log = cloud.logs[pod_id]
        after_seq = first_seq(log, sources, request.headers.get("last-event-id"), since, tail)
        stream = _stream(log, sources, after_seq)
        return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)

    return routes


def _update(cloud: Cloud, pod_id: str, body: wire.PatchPod) -> Pod:
    pod = cloud.get(pod_id)
    pod.request = body.changed(pod.request, cloud.account)
    pod.locked = pod.locked if body.locked is None else body.locked
    changed = sorted(body.model_dump(by_alias=True, exclude_unset=True))
    cloud.events.add("pod.updated", pod_id=pod.id, name=pod.name, changed=changed)
    return pod


def _sources(source: str | None) -> tuple[str, ...]:
    if source is None:
        return SOURCES
    if source not in SOURCES:
        raise bad_query("source: must be container or system")
    return (source,)


def first_seq(log: PodLog, sources: tuple[str, ...], last_id: str | None, since: str | None, tail: int) -> int:
    """The number after which to show lines: Last-Event-ID, else since, else the last `tail`."""
    lines = [line for line in log.lines() if line.source in sources]
    if last_id:
        return _seq_of(last_id, lines, log.last_seq)
    if since is not None:
        since_s = instant("since", since).timestamp()
        return next((line.seq - 1 for line in lines if line.at_s >= since_s), log.last_seq)
    if tail == 0 or not lines:
        return log.last_seq
    return lines[-tail].seq - 1 if len(lines) > tail else 0


def _seq_of(last_id: str, lines: list[LogLine], last_seq: int) -> int:
    """An id of ours is `<ts>/<seq>`; a time alone is one, too."""
    at, _, number = last_id.rpartition("/")
    if at and number.isascii() and number.isdigit():
        return int(number)
    seen_s = instant("Last-Event-ID", last_id).timestamp()
    return next((line.seq - 1 for line in lines if line.at_s > seen_s), last_seq)


async def _stream(log: PodLog, sources: tuple[str, ...], after_seq: int) -> AsyncIterator[str]:
    yield ": open\n\n"
    async for line in log.follow(after_seq, LOG_IDLE_S):
        if line is None:
            yield ": idle\n\n"
        elif line.source in sources:
            yield _event(line)


def _event(line: LogLine) -> str:
    body = json.dumps({"ts": line.ts, "source": line.source, "line": line.text}, ensure_ascii=False)
    return f"id: {line.id}\ndata: {body}\n\n"
