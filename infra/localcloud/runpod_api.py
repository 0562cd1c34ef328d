"""RunPod's REST v2, as far as a fleet of pods needs it: routes over `cloud`, JSON by `runpod_wire`.

Key, rate limit and faults are `door`'s; the control routes are `control_api`'s.
"""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Scope

from localcloud import runpod_wire as wire
from localcloud.cloud import Cloud
from localcloud.control_api import control_routes
from localcloud.door import Door, problem_response, validation_problem
from localcloud.errors import Problem
from localcloud.model import Pod
from localcloud.podlog import LogLine, PodLog

LOG_IDLE_S = 15.0
MAX_TAIL = 5000
SOURCES = ("container", "system")


def create_app(cloud: Cloud, api_key: str, hang_up: Callable[[Scope], None]) -> ASGIApp:
    """The whole application of the RunPod port."""
    app = FastAPI(title="localcloud, RunPod v2", docs_url=None, redoc_url=None, openapi_url="/v2/openapi.json")
    app.include_router(_pod_routes(cloud))
    app.include_router(_catalogue_routes(cloud))
    app.include_router(_secret_routes(cloud))
    app.include_router(control_routes(cloud))
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    return Door(app, cloud, api_key, hang_up)


def _pod_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/pods")

    @routes.get("")
    async def list_pods(cursor: str | None = None) -> dict[str, Any]:
        return _page(cloud.listed(), cursor, cloud.facts.page_size)

    @routes.post("", status_code=201)
    async def create_pod(body: wire.CreatePod) -> dict[str, Any]:
        return wire.pod_json(cloud.create(body.to_request(cloud.facts)))

    @routes.get("/{pod_id}")
    async def get_pod(pod_id: str) -> dict[str, Any]:
        return wire.pod_json(cloud.get(pod_id))

    @routes.delete("/{pod_id}")
    async def delete_pod(pod_id: str) -> Response:
        cloud.delete(pod_id)
        return Response(status_code=204)

    @routes.post("/{pod_id}/action")
    async def act(pod_id: str, body: wire.Action) -> Response:
        pod = cloud.act(pod_id, body.action)
        return JSONResponse(wire.pod_json(pod)) if pod else Response(status_code=204)

    @routes.get("/{pod_id}/logs")
    async def logs(
        request: Request, pod_id: str, source: str | None = None, tail: int = 100, since: str | None = None
    ) -> Response:
        cloud.get(pod_id)
        sources = _sources(source)
        if not 0 <= tail <= MAX_TAIL:
            raise Problem(422, "malformed query", errors=[f"tail: must be 0 to {MAX_TAIL}"])
        log = cloud.logs[pod_id]
        after_seq = _first_seq(log, sources, request.headers.get("last-event-id"), since, tail)
        return StreamingResponse(_stream(log, sources, after_seq), media_type="text/event-stream")

    return routes


def _page(pods: list[Pod], cursor: str | None, size: int) -> dict[str, Any]:
    start = 0 if cursor is None else _after_cursor(pods, cursor)
    page, rest = pods[start : start + size], pods[start + size :]
    following = base64.urlsafe_b64encode(str(page[-1].serial).encode()).decode() if rest else ""
    return {
        "pods": [wire.pod_json(pod) for pod in page],
        "pagination": {"hasNextPage": bool(rest), "nextCursor": following},
    }


def _after_cursor(pods: list[Pod], cursor: str) -> int:
    """Where the next page begins, also when the pod that ended the last one is gone."""
    try:
        last = int(base64.urlsafe_b64decode(cursor))
    except (ValueError, binascii.Error):
        raise Problem(422, "malformed query", errors=["cursor: malformed"]) from None
    return next((index for index, pod in enumerate(pods) if pod.serial > last), len(pods))


def _sources(source: str | None) -> tuple[str, ...]:
    if source is None:
        return SOURCES
    if source not in SOURCES:
        raise Problem(422, "malformed query", errors=["source: must be container or system"])
    return (source,)


def _first_seq(log: PodLog, sources: tuple[str, ...], last_id: str | None, since: str | None, tail: int) -> int:
    """The number after which to show lines: Last-Event-ID, else since, else the last `tail`."""
    lines = [line for line in log.lines() if line.source in sources]
    if last_id:
        number = last_id.rpartition("/")[2]
        return int(number) if number.isdigit() else 0
    if since:
        since_s = _epoch_s(since)
        return next((line.seq - 1 for line in lines if line.at_s >= since_s), log.last_seq)
    if tail == 0 or not lines:
        return log.last_seq
    return lines[-tail].seq - 1 if len(lines) > tail else 0


def _epoch_s(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Problem(422, "malformed query", errors=["since: must be RFC 3339"]) from None


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


def _catalogue_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/catalog/gpus")

    @routes.get("")
    async def list_gpus(request: Request) -> dict[str, Any]:
        query = wire.availability_query(dict(request.query_params))
        return {"gpus": [wire.gpu_json(gpu, cloud.facts, cloud.stock, query) for gpu in cloud.facts.gpus]}

    @routes.get("/{gpu_id}")
    async def get_gpu(request: Request, gpu_id: str) -> dict[str, Any]:
        query = wire.availability_query(dict(request.query_params))
        gpu = cloud.facts.gpu(gpu_id)
        if gpu is None:
            raise Problem(404, cloud.facts.texts.not_found)
        return wire.gpu_json(gpu, cloud.facts, cloud.stock, query)

    return routes


def _secret_routes(cloud: Cloud) -> APIRouter:
    routes = APIRouter(prefix="/v2/account/secrets")

    @routes.post("", status_code=201)
    async def create_secret(body: wire.CreateSecret) -> dict[str, Any]:
        if body.name.upper().startswith("RUNPOD"):
            raise Problem(422, "names must not begin with RUNPOD", errors=["name: must not begin with RUNPOD"])
        return wire.secret_json(cloud.create_secret(body.name, body.value, body.description))

    @routes.get("")
    async def list_secrets(name: str | None = None) -> dict[str, Any]:
        found = [secret for secret in cloud.secrets.values() if name is None or secret.name == name]
        return {
            "secrets": [wire.secret_json(secret) for secret in found],
            "pagination": {"hasNextPage": False, "nextCursor": ""},
        }

    @routes.get("/{secret_id}")
    async def get_secret(secret_id: str) -> dict[str, Any]:
        return wire.secret_json(cloud.secret(secret_id))

    @routes.patch("/{secret_id}")
    async def patch_secret(secret_id: str, body: wire.PatchSecret) -> dict[str, Any]:
        return wire.secret_json(cloud.update_secret(secret_id, body.value, body.description))

    @routes.delete("/{secret_id}")
    async def delete_secret(secret_id: str) -> Response:
        cloud.delete_secret(secret_id)
        return Response(status_code=204)

    return routes


async def _on_problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return problem_response(error)


async def _on_invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return problem_response(validation_problem(error.errors()))


async def _on_http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    detail = "resource not found" if error.status_code == 404 else str(error.detail)
    return problem_response(Problem(error.status_code, detail))
