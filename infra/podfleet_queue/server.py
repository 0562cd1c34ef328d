"""The application and its process: sockets, signals, the ready line.

Called by `cli`. `create_app` is the whole wire around a `Store`; `serve` binds first, so that a port in use is one
clear line before anything is opened, and prints one ready line when requests are answered.
"""

import errno
import json
import signal
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from podfleet_queue import logs, node_routes, queue_routes
from podfleet_queue.errors import RequestError, ServeError
from podfleet_queue.jobs import Policy
from podfleet_queue.store import Store

READY_LINE = "podfleet-queue ready "
GRACE_S = 5


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything that `podfleet-queue serve` can be told."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 8792
    policy: Policy = field(default_factory=Policy)


def create_app(store: Store) -> FastAPI:
    """The wire around a store."""
    app = FastAPI(title="podfleet-queue", docs_url=None, redoc_url=None)
    app.state.store = store
    app.include_router(node_routes.router)
    app.include_router(queue_routes.router)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(sqlite3.Error, _storage_failed)
    app.add_exception_handler(OSError, _storage_failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


def serve(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests get GRACE_S seconds. `say` gets the ready line.

    Raises ServeError when the port or the folder is taken.
    """
    listener = bind(options.host, options.port)
    with listener:
        store = Store(options.root, options.policy)
        try:
            _run(create_app(store), listener, say)
        finally:
            store.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServeError(f"port {port} on {host} is in use; choose another with --port") from error
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.set_inheritable(False)
    return listener


def _run(app: FastAPI, listener: socket.socket, say: Callable[[str], None]) -> None:
    # uvicorn stops on these signals and then raises them again for whoever handled them before: that is us, and a
    # stop that was asked for is a success.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S, lifespan="off"
    )
    _Server(config, f"{READY_LINE}{_url(listener)}", say).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says its line once requests are answered."""

    def __init__(self, config: uvicorn.Config, line: str, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._line = line
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say(self._line)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _AsciiJson(JSONResponse):
    """Escapes everything beyond ASCII: a refused input may hold what UTF-8 cannot."""

    def render(self, content: object) -> bytes:
        return json.dumps(content).encode("ascii")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, RequestError) else 500
    return JSONResponse({"detail": str(error)}, status_code=status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    details = error.errors() if isinstance(error, RequestValidationError) else []
    return _AsciiJson({"detail": jsonable_encoder(details)}, status_code=422)


async def _storage_failed(request: Request, error: Exception) -> JSONResponse:
    logs.error("storage.failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
    return JSONResponse({"detail": "Storage error, try again"}, status_code=500)


async def _gone(request: Request, _: Exception) -> JSONResponse:
    logs.warn("upload.broken_off", path=request.url.path)
    return JSONResponse({"detail": "Upload broken off"}, status_code=400)
