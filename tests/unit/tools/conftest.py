"""A checkout of its own for each test, with made-up programs on its PATH: no network, nothing of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from setup_fakes import GO_MOD, PROJECT, FakeIndex, Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A checkout in a folder with a blank, an empty PATH folder, a cache and a home."""
    root, programs = tmp_path / "a checkout", tmp_path / "programs"
    for folder in (root / "requirements", root / "node", root / "tools" / "engine", programs, tmp_path / "home"):
        folder.mkdir(parents=True)
    for file in ("pyproject.toml", "node/pyproject.toml", "requirements/dev.lock"):
        (root / file).write_text(f"# {file}\n")
    (root / "tools" / "engine" / "go.mod").write_text(GO_MOD)
    (root / "tools" / "engine" / "go.sum").write_text("")
    for folder in ("standins", "langhost"):
        (root / "tools" / folder).symlink_to(PROJECT / "tools" / folder)
    env = {"PATH": str(programs), "HOME": str(tmp_path / "home"), "PIP_CONFIG_FILE": "/dev/null"}
    return Places(root=root, cache=tmp_path / "cache", env=env)


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    fake = FakeIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.requests.append((self.path, self.headers.get("Authorization")))
            name = self.path.rsplit("/", 1)[-1]
            kind, body = fake.listing() if self.path == "/simple/uv/" else ("", fake.files.get(name, b""))
            self.send_response(fake.status if body else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/simple"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()
