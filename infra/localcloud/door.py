"""What stands before the RunPod routes: key, rate limit, faults, request ids, the request log. Plain ASGI.

The routes behind it commit an operation before they send the first byte of their answer, so this is the one place that
can stop a request before the commit, or swallow the answer after it.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localcloud.cloud import Cloud
from localcloud.errors import Problem, title
from localcloud.faults import Fault, Phase, wait_out
from localcloud.ratelimit import RateLimit

PREFIXES = ("/v2", "/graphql")
OPERATIONS: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/v2/pods/?", "pods.list"),
    ("POST", r"/v2/pods/?", "pods.create"),
    ("GET", r"/v2/pods/(?P<pod>[^/]+)", "pods.get"),
    ("DELETE", r"/v2/pods/(?P<pod>[^/]+)", "pods.delete"),
    ("POST", r"/v2/pods/(?P<pod>[^/]+)/action", "pods.action"),
    ("GET", r"/v2/pods/(?P<pod>[^/]+)/logs", "pods.logs"),
    ("GET", r"/v2/catalog/gpus(/[^/]+)?", "catalog.gpus"),
    ("POST", r"/v2/account/secrets", "secrets.create"),
    ("GET", r"/v2/account/secrets(/(?P<secret>[^/]+))?", "secrets.list"),
    ("PATCH", r"/v2/account/secrets/(?P<secret>[^/]+)", "secrets.update"),
    ("DELETE", r"/v2/account/secrets/(?P<secret>[^/]+)", "secrets.delete"),
    ("PATCH", r"/v2/pods/(?P<pod>[^/]+)", "pods.update"),
    ("GET", r"/v2/catalog/datacenters(/[^/]+)?", "catalog.datacenters"),
    ("POST", r"/v2/registries", "registries.create"),
    ("GET", r"/v2/registries(/[^/]+)?", "registries.list"),
    ("DELETE", r"/v2/registries/[^/]+", "registries.delete"),
    ("POST", r"/v2/network-volumes", "volumes.create"),
    ("GET", r"/v2/network-volumes(/[^/]+)?", "volumes.list"),
    ("PATCH", r"/v2/network-volumes/[^/]+", "volumes.update"),
    ("DELETE", r"/v2/network-volumes/[^/]+", "volumes.delete"),
    ("GET", r"/v2/billing(/[^/]+)?", "billing"),
    ("(GET|PUT)", r"/v2/account/ssh-keys", "ssh-keys"),
    ("POST", r"/graphql/?", "graphql"),
)
POD_KEY_OPERATIONS = ("pods.get", "pods.delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request is about."""

    op: str
    pod_id: str | None = None
    secret_id: str | None = None


def operation(method: str, path: str) -> Operation:
    """The operation of a request; `other` when no row of the table fits."""
    for wanted_method, pattern, op in OPERATIONS:
        match = re.fullmatch(pattern, path) if re.fullmatch(wanted_method, method) else None
        if match:
            groups = match.groupdict()
            return Operation(op, groups.get("pod"), groups.get("secret"))
    return Operation("other")


@dataclass(slots=True)
class Exchange:
    """One request on its way: connection, body, and what became of it."""

    scope: Scope
    receive: Receive
    send: Send
    what: Operation
    generation: int
    name: str | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    client_gone: bool = False

    async def read_body(self) -> None:
        """All of it: faults match names that stand in it."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.client_gone = True
                return
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                return

    def replay(self) -> Receive:
        """A `receive` that gives the body again, then the connection's own messages."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                return await self.receive()
            given = True
            return {"type": "http.request", "body": self.body, "more_body": False}

        return receive

    async def disconnected(self) -> None:
        """Returns when the client has hung up."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.client_gone = True


class Door:
    """The middleware. `hang_up` closes a client's connection without an answer."""

    def __init__(self, app: ASGIApp, cloud: Cloud, api_key: str, hang_up: Callable[[Scope], None]) -> None:
        self._app = app
        self._cloud = cloud
        self._api_key = api_key
        self._hang_up = hang_up
        self._limit = RateLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests outside the service's paths (the control routes) pass by."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIXES):
            await self._app(scope, receive, send)
            return
        what = operation(scope["method"], scope["path"])
        exchange = Exchange(scope, receive, send, what, self._cloud.generation)
        exchange.headers["x-request-id"] = secrets.token_hex(8)
        try:
            self._admit(exchange)
        except Problem as problem:
            await self._refuse(exchange, problem)
            return
        await exchange.read_body()
        exchange.name = self._name(exchange)
        if await self._pass("before", exchange):
            await self._app(scope, exchange.replay(), self._outgoing(exchange))

    def _admit(self, exchange: Exchange) -> None:
        """Key and rate limit; both before anything is read."""
        texts = self._cloud.facts.texts
        headers = dict(exchange.scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Problem(401, texts.no_token)
        owner = self._pod_of_key(key.strip())
        if owner is None and not secrets.compare_digest(key.strip().encode(), self._api_key.encode()):
            raise Problem(401, texts.bad_token)
        verdict = self._limit.count(self._cloud.facts)
        exchange.headers.update(verdict.headers)
        if verdict.retry_after_s is not None:
            raise Problem(429, texts.rate_limited, headers={"Retry-After": str(verdict.retry_after_s)})
        if owner and (exchange.what.op not in POD_KEY_OPERATIONS or exchange.what.pod_id != owner):
            raise Problem(403, texts.forbidden)

    def _pod_of_key(self, key: str) -> str | None:
        given = key.encode()
        pods = self._cloud.pods.values()
        return next((pod.id for pod in pods if secrets.compare_digest(pod.api_key.encode(), given)), None)

    def _name(self, exchange: Exchange) -> str | None:
        what, cloud = exchange.what, self._cloud
        if what.pod_id:
            pod = cloud.pods.get(what.pod_id)
            return pod.name if pod else None
        if what.secret_id:
            secret = cloud.secrets.get(what.secret_id)
            return secret.name if secret else None
        with contextlib.suppress(ValueError):
            body = json.loads(exchange.body or b"null")
            return str(body["name"]) if isinstance(body, dict) and "name" in body else None
        return None

    async def _pass(self, phase: Phase, exchange: Exchange) -> bool:
        """Let a fault happen; True when the request goes on as if there were none."""
        fault = self._cloud.faults.hit(exchange.what.op, phase, exchange.name)
        if fault is None:
            return not self._note_if_gone(exchange)
        await _wait_while_connected(fault, exchange)
        if self._note_if_gone(exchange):
            return False
        if phase == "before" and exchange.generation != self._cloud.generation:
            await self._refuse(exchange, Problem(503, "the cloud was reset or shut down meanwhile"))
            return False
        return await self._fail(fault, exchange)

    async def _fail(self, fault: Fault, exchange: Exchange) -> bool:
        """What the fault does instead of the answer; True = nothing."""
        if fault.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.action in ("drop", "hang"):
            self._log(exchange, None, "dropped")
            self._hang_up(exchange.scope)
            await exchange.disconnected()
            return False
        if fault.action == "html":
            await self._answer(exchange, html_response(fault), fault.status)
            return False
        if fault.action == "status":
            problem = self._problem(fault)
            await self._answer(exchange, problem_response(problem), problem.status)
            return False
        return True

    def _note_if_gone(self, exchange: Exchange) -> bool:
        if exchange.client_gone:
            self._log(exchange, None, "client-gone")
        return exchange.client_gone

    def _problem(self, fault: Fault) -> Problem:
        texts = self._cloud.facts.texts
        usual = {400: texts.no_capacity, 401: texts.bad_token, 402: texts.low_balance, 429: texts.rate_limited}
        usual[410] = texts.gone
        headers = dict(fault.headers)
        if fault.status == 429 and "retry-after" not in {key.lower() for key in headers}:
            headers["Retry-After"] = str(max(1, math.ceil(fault.delay_s)))
        return Problem(fault.status, fault.detail or usual.get(fault.status, "internal error"), headers=headers)

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        await self._answer(exchange, problem_response(problem), problem.status)

    async def _answer(self, exchange: Exchange, response: Response, status: int) -> None:
        self._log(exchange, status)
        response.headers.update(exchange.headers)
        await response(exchange.scope, exchange.receive, exchange.send)

    def _outgoing(self, exchange: Exchange) -> Send:
        """A `send` that lets `after` faults happen between the commit and the first byte."""
        swallowed = False

        async def send(message: Message) -> None:
            nonlocal swallowed
            if swallowed:
                return
            if message["type"] == "http.response.start":
                if message["status"] < 400 and not await self._pass("after", exchange):
                    swallowed = True
                    return
                self._log(exchange, message["status"])
                extra = [(key.encode(), value.encode()) for key, value in exchange.headers.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await exchange.send(message)

        return send

    def _log(self, exchange: Exchange, status: int | None, outcome: str = "answered") -> None:
        self._cloud.events.add(
            "request",
            op=exchange.what.op,
            method=exchange.scope["method"],
            path=exchange.scope["path"],
            name=exchange.name,
            status=status,
            outcome=outcome,
            request_id=exchange.headers["x-request-id"],
        )


async def _wait_while_connected(fault: Fault, exchange: Exchange) -> None:
    """Wait as the fault says, or until the client hangs up."""
    waiting = asyncio.ensure_future(wait_out(fault))
    hung_up = asyncio.ensure_future(exchange.disconnected())
    try:
        await asyncio.wait([waiting, hung_up], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and not hung_up.done():
            await asyncio.sleep(0)  # a client that hung up at this very moment counts as gone
    finally:
        waiting.cancel()
        hung_up.cancel()


def problem_response(problem: Problem) -> Response:
    """application/problem+json."""
    content = json.dumps(problem.body())
    return Response(content, problem.status, headers=dict(problem.headers), media_type="application/problem+json")


def html_response(fault: Fault) -> Response:
    """What stands before the service answers by itself: a page, no JSON."""
    code = fault.detail or str(fault.status)
    page = f"""<!DOCTYPE html>
<html lang="en-US"><head><title>api.runpod.io | {code}: {title(fault.status)}</title></head>
<body><h1>Error {code}</h1><p>Ray ID: {secrets.token_hex(8)}</p><p>Performance &amp; security by Cloudflare</p>
</body></html>
"""
    headers = {"Server": "cloudflare", **fault.headers}
    return Response(page, fault.status, headers=headers, media_type="text/html; charset=UTF-8")


def validation_problem(errors: Any) -> Problem:
    """422 that names each field that is missing, unknown or wrong."""
    lines = []
    for error in errors:
        where = ".".join(str(part) for part in error["loc"] if part not in ("body", "query"))
        text = (
            "additional property is not allowed"
            if error["type"] == "extra_forbidden"
            else error["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{where}: {text}" if where else text)
    return Problem(422, f"request does not match the schema: {'; '.join(lines)}", errors=lines)
