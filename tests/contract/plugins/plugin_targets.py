"""What the plugins talk to in these tests: an SSH server and a Tailscale API on loopback, each with a record."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncssh

KEY_TIMES = {"created": "2026-01-01T00:00:00Z", "expires": "2026-01-01T01:00:00Z"}


@dataclass
class SshTarget:
    """Accepts one key; `ran` holds (command, stdin) of every session."""

    port: int = 0
    client_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    ran: list[tuple[str, str]] = field(default_factory=list)

    @property
    def public_host_key(self) -> str:
        return self.host_key.export_public_key().decode().strip()

    async def _session(self, process: asyncssh.SSHServerProcess[str]) -> None:
        stdin = await process.stdin.read()
        self.ran.append((process.command or "", stdin))
        process.stdout.write(f"did {process.command}\n")
        process.exit(0)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        accepted = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self.host_key],
            authorized_client_keys=accepted,
            process_factory=self._session,
        )
        self.port = server.get_port()
        ready.set()
        await stop.wait()
        server.close()
        await server.wait_closed()


@contextmanager
def ssh_target() -> Iterator[SshTarget]:
    target, ready = SshTarget(), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(target.serve(ready, stop)))
    thread.start()
    ready.wait(timeout=10)
    yield target
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@dataclass
class TailscaleTarget:
    """Keys and the policy of one tailnet; `requests` holds "METHOD path" of each request."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    keys: dict[str, dict[str, object]] = field(default_factory=dict)
    policy: str = ""

    def answer(self, method: str, path: str, body: str) -> tuple[int, str]:
        place = path.removeprefix("/api/v2/tailnet/-")
        self.requests.append(f"{method} {place}")
        if place == "/acl":
            self.policy = body if method == "POST" else self.policy
            return 200, self.policy
        if method == "POST":
            wanted = json.loads(body)
            key: dict[str, object] = {"id": f"k{len(self.requests)}", **wanted, **KEY_TIMES, "invalid": False}
            self.keys[str(key["id"])] = key
            return 200, json.dumps({**key, "key": "tskey-auth-canary"})
        key_id = place.removeprefix("/keys/")
        found = self.keys.pop(key_id, None) if method == "DELETE" else self.keys.get(key_id)
        return (200, json.dumps(found)) if found else (404, '{"message": "not found"}')


@contextmanager
def tailscale_target() -> Iterator[TailscaleTarget]:
    target = TailscaleTarget()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, text = target.answer(self.command, self.path, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names of the base class

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    target.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield target
    server.shutdown()
    server.server_close()
    thread.join()
