"""What stands before the RunPod routes: key, rate limit, faults, request ids, the request log. Plain ASGI.

The routes behind it commit an operation before they send the first byte of their answer, so this is the one place that
can stop a request before the commit, or swallow the answer after it.
"""

import asyncio
import contextlib
import json
import math
import os
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localcloud import answers
from localcloud.cloud import Cloud
from localcloud.errors import Problem
from localcloud.faults import Fault, Phase, wait_out
from localcloud.keepfirst import KeepFirst
from localcloud.operations import KEY_OWNER, OPENAPI, SERVED, V1, Operation, operation
from localcloud.ratelimit import RateLimit


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
        self._app = KeepFirst(app, cloud.keep)
        self._cloud = cloud
        self._api_key = api_key
        self._hang_up = hang_up
        self._limit = RateLimit()
        cloud.on_reset(self._begin_anew)

    def _begin_anew(self) -> None:
        self._limit = RateLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests outside the service's paths (the control routes) pass by."""
        what = operation(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if what is None or what.op == OPENAPI or not scope["path"].startswith(SERVED):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, what, self._cloud.generation)
        exchange.headers["x-request-id"] = secrets.token_hex(8)
        try:
            self._admit(exchange)
        except Problem as problem:
            await self._refuse(exchange, problem)
            return
        await exchange.read_body()
        exchange.what = what.read(exchange.body)
        exchange.name = self._name(exchange)
        if await self._pass("before", exchange):
            await self._app(scope, exchange.replay(), self._outgoing(exchange))

    def _admit(self, exchange: Exchange) -> None:
        """Key and rate limit; both before anything is read."""
        facts, texts, what = self._cloud.facts, self._cloud.facts.texts, exchange.what
        if what.op == V1 or (what.is_graphql and facts.graphql == "gone"):
            raise Problem(410, texts.gone)
        key = _key_of(exchange)
        if not key:
            raise Problem(401, texts.no_token)
        owner = self._pod_of_key(key)
        if owner is None and not secrets.compare_digest(key.encode(), self._api_key.encode()):
            raise Problem(401, texts.bad_token)
        exchange.scope[KEY_OWNER] = owner
        verdict = self._limit.count(self._cloud.facts)
        exchange.headers.update(verdict.headers)
        if verdict.retry_after_s is not None:
            raise Problem(429, texts.rate_limited, headers={"Retry-After": str(verdict.retry_after_s)})
        if owner and not what.is_graphql and (what.op not in facts.pod_key_rights or what.pod_id != owner):
            raise Problem(403, texts.forbidden)

    def _pod_of_key(self, key: str) -> str | None:
        given = key.encode()
        pods = self._cloud.pods.values()
        return next((pod.id for pod in pods if secrets.compare_digest(pod.api_key.encode(), given)), None)

    def _name(self, exchange: Exchange) -> str | None:
        what, account = exchange.what, self._cloud.account
        if what.kind and what.record_id:
            records: dict[str, Mapping[str, Any]] = {
                "pod": self._cloud.pods,
                "secret": self._cloud.secrets,
                "registry": account.registries,
                "volume": account.volumes,
                "template": account.templates,
            }
            record = records[what.kind].get(what.record_id)
            return str(record.name) if record else None
        with contextlib.suppress(ValueError):
            body = json.loads(exchange.body or b"null")
            return str(body["name"]) if isinstance(body, dict) and "name" in body else None
        return None

    async def _pass(self, phase: Phase, exchange: Exchange) -> bool:
        """Let a fault happen; True when the request goes on as if there were none."""
        fault = self._cloud.faults.hit(exchange.what.op, phase, exchange.name)
        if fault is None:
            return not self._note_if_gone(exchange)
        self._cloud.keep()  # that it hit: a cloud that dies now must not hit once more
        if fault.action == "late":
            await wait_out(fault)  # the request has been taken in: it is carried out, whoever has hung up since
        else:
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
            await self._answer(exchange, answers.html_response(fault), fault.status)
            return False
        if fault.action == "status":
            problem = self._problem(fault)
            await self._refuse(exchange, problem)
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
        await self._answer(exchange, answers.refusal(exchange.what, problem), problem.status)

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
        self._cloud.keep()


def _key_of(exchange: Exchange) -> str:
    """The bearer token; GraphQL also takes `?api_key=`."""
    headers = dict(exchange.scope["headers"])
    given: str = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, token = given.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    text: str = exchange.scope["query_string"].decode("latin-1") if exchange.what.is_graphql else ""
    return parse_qs(text).get("api_key", [""])[0]


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
