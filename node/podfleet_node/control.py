"""The control endpoint of a running node, on loopback, and its client. Standard library only.

The supervisor serves; `podfleet-node start|configure|drain|status` call, usually from an SSH session. Address and token
stand in `<root>/run/podfleet-node.json`, which only the node's user can read.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

from podfleet_node.errors import NoNodeRunning
from podfleet_node.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"
ANSWER_S = 10.0
LONGEST_BODY = 64 * 1024


class Actions(Protocol):
    """What the endpoint can ask of the supervisor; called from threads of the endpoint."""

    def status(self) -> dict[str, Any]:
        """What the node does now."""

    def start(self) -> dict[str, Any]:
        """The `start` step: begin to work. A second call changes nothing."""

    def reload(self) -> dict[str, Any]:
        """Read the settings file again."""

    def drain(self, deadline_s: float | None) -> dict[str, Any]:
        """Stop claiming and wait until nothing is held, or the deadline has passed."""


class ControlServer:
    """Serves `actions` in daemon threads and writes the control file."""

    def __init__(self, actions: Actions, control_file: Path) -> None:
        self._token = secrets.token_urlsafe(24)
        self._server = ThreadingHTTPServer((HOST, 0), _handler_for(actions, self._token))
        self._server.daemon_threads = True
        self._file = control_file

    def start(self) -> None:
        """Listen, then say where."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        port = self._server.server_address[1]
        write_json(self._file, {"pid": os.getpid(), "port": port, "token": self._token})

    def close(self) -> None:
        """Take the file away; the threads end with the process."""
        self._file.unlink(missing_ok=True)


def call(
    control_file: Path, method: str, path: str, body: Any = None, *, timeout_s: float = ANSWER_S
) -> dict[str, Any]:
    """Ask the running node. Raises NoNodeRunning when there is none, or it does not answer in time."""
    where = read_json(control_file)
    if where is None:
        raise NoNodeRunning("no node is running here")
    connection = http.client.HTTPConnection(HOST, int(where["port"]), timeout=timeout_s)
    headers = {"Authorization": f"Bearer {where['token']}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        answer = connection.getresponse()
        content = json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise NoNodeRunning(f"the node does not answer ({type(err).__name__})") from None
    finally:
        connection.close()
    if answer.status != http.client.OK or not isinstance(content, dict):
        raise NoNodeRunning(f"the control endpoint answered {answer.status}")
    return content


def _handler_for(actions: Actions, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            self._answer({"/status": lambda _body: actions.status()})

        def do_POST(self) -> None:
            self._answer(
                {
                    "/start": lambda _body: actions.start(),
                    "/reload": lambda _body: actions.reload(),
                    "/drain": lambda body: actions.drain(_deadline_s(body)),
                }
            )

        def _answer(self, routes: dict[str, Any]) -> None:
            body = self.rfile.read(min(LONGEST_BODY, int(self.headers.get("Content-Length") or 0)))
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                self._send(401, {"detail": "wrong token"})
            elif self.path not in routes:
                self._send(404, {"detail": "no such action"})
            else:
                self._send(200, routes[self.path](body))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_args: Any) -> None:
            """Calls are visible by what they do."""

    return Handler


def _deadline_s(body: bytes) -> float | None:
    try:
        value = json.loads(body or b"{}").get("deadline_s")
        return None if value is None else max(0.0, float(value))
    except (ValueError, TypeError, AttributeError):
        return None
