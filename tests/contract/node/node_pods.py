"""Real `podfleet-node` processes for tests, and what stands around them: a cloud to ask for the end, a bad network."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
COMMAND = Path(sys.executable).parent / "podfleet-node"
WAIT_S = 60.0

# Fast for tests; every rule of self-termination off, so that each test switches on the one that it is about.
QUICK: Mapping[str, str] = {
    "PODFLEET_ENGINE": "scripted",
    "PODFLEET_METRICS_PORT": "0",
    "PODFLEET_POLL_S": "0.2",
    "PODFLEET_HEARTBEAT_S": "1",
    "PODFLEET_STOP_ON_EMPTY_QUEUE": "false",
    "PODFLEET_IDLE_TIMEOUT_S": "0",
    "PODFLEET_SERVER_UNREACHABLE_S": "0",
    "PODFLEET_MAX_CONSECUTIVE_FAILURES": "0",
}


def until(probe: Callable[[], T], *, what: str, timeout_s: float = WAIT_S) -> T:
    """The first true answer of `probe`."""
    give_up_at_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at_s:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s} s in vain for: {what}")


@dataclass
class NodePod:
    """One pod: the process group of PID 1, its folder, its lines."""

    process: subprocess.Popen[str]
    root: Path
    lines: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def said(self, prefix: str) -> str:
        """The first line with this prefix, "" while there is none."""
        return next((line for line in self.lines if line.startswith(prefix)), "")

    def wait_for(self, prefix: str, timeout_s: float = WAIT_S) -> str:
        """That line, when it has come."""
        try:
            return until(lambda: self.said(prefix), what=prefix, timeout_s=timeout_s)
        except AssertionError as err:
            raise AssertionError("\n".join([str(err), *self.lines, *self.log[-30:]])) from None

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log records of one event."""
        records = (json.loads(line) for line in list(self.log) if line.startswith("{"))
        return [record for record in records if record.get("event") == event]

    def command(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`podfleet-node …` as a login would run it: without the pod's variables."""
        environ = {"PATH": os.environ["PATH"], "PODFLEET_ROOT": str(self.root)}
        return subprocess.run(
            [COMMAND, *arguments], env=environ, input=stdin, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    def status(self) -> dict[str, Any]:
        """What `status --json` says; {} when nobody answers."""
        done = self.command("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def terminate(self) -> float:
        """SIGTERM to the whole group, as the stand-in cloud does; returns the seconds until PID 1 was gone."""
        began_s = time.monotonic()
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(WAIT_S)
        return time.monotonic() - began_s

    def group(self) -> list[int]:
        """Living processes of the group."""
        return [pid for pid in _pids() if _group_of(pid) == self.process.pid]


@contextmanager
def pod(root: Path, server_url: str, /, output_fd: int | None = None, **settings: object) -> Iterator[NodePod]:
    """Run a node until the block ends. `settings` are its fields; a key with a capital is a variable as is.

    With `output_fd` it writes there, and its lines are not read.
    """
    root.mkdir(parents=True, exist_ok=True)
    environ = {**QUICK, "PATH": os.environ["PATH"], "HOME": str(root), "LANG": "C.UTF-8"}
    environ |= {"PODFLEET_ROOT": str(root), "PODFLEET_SERVER_URL": server_url, "PODFLEET_NODE_NAME": root.name}
    for name, value in settings.items():
        variable = name if name[0].isupper() else f"PODFLEET_{name.upper()}"
        environ[variable] = value if isinstance(value, str) else json.dumps(value)
    process = subprocess.Popen(
        [COMMAND, "run"],
        env=environ,
        stdout=subprocess.PIPE if output_fd is None else output_fd,
        stderr=subprocess.PIPE if output_fd is None else output_fd,
        text=True,
        start_new_session=True,
    )
    node = NodePod(process, root)
    outputs = [(process.stdout, node.lines), (process.stderr, node.log)]
    readers = [_reader(stream, into) for stream, into in outputs if stream is not None]
    try:
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join(5)


def _reader(stream: Any, into: list[str]) -> threading.Thread:
    def read() -> None:
        with stream:
            into.extend(line.rstrip("\n") for line in stream)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed in mid-request is what these tests are about."""


@dataclass
class Cloud:
    """Takes the requests that end a pod; `status` is what it answers, by path."""

    url: str = ""
    status: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)

    def paths(self) -> list[str]:
        """Paths asked for, in order."""
        return [path for _, path, _, _ in self.requests]


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A provider's API, as far as a node knows one."""
    seen = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            seen.requests.append((self.command, self.path, dict(self.headers), body))
            self.send_response(seen.status.get(self.path, 204))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with _serving(Handler) as seen.url:
        yield seen


@dataclass
class Hurdle:
    """Stands before the queue server; `faults` maps a part of a path to the status that it answers instead."""

    url: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def count(self, part: str) -> int:
        """Requests whose `METHOD path` holds `part`."""
        return sum(part in call for call in self.seen)


@contextmanager
def hurdle(server_url: str) -> Iterator[Hurdle]:
    """A proxy that can refuse."""
    way = Hurdle()
    client = httpx.Client(base_url=server_url, timeout=20, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            way.seen.append(f"{self.command} {self.path}")
            fault = next((status for part, status in way.faults.items() if part in self.path), None)
            if fault is not None:
                self._send(httpx.Response(fault, json={"detail": "hurdle"}))
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            try:
                self._send(client.request(self.command, self.path, content=body, headers=headers))
            except httpx.TransportError:
                self._send(httpx.Response(502))

        def _send(self, answer: httpx.Response) -> None:
            self.send_response(answer.status_code)
            for name in ("content-type", "etag", "content-range"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with client, _serving(Handler) as way.url:
        yield way


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def add_noise(server_url: str, *, seed: int, audio_s: float = 2.0) -> int:
    """Queue an episode of noise that no other seed makes; returns the job's id."""
    made = io.BytesIO()
    with wave.open(made, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(seed.to_bytes(2, "little", signed=True) * int(16000 * audio_s))
    return add(server_url, made.getvalue(), name=f"noise-{seed}.wav")


def add(server_url: str, content: bytes, *, name: str) -> int:
    """Queue a file; returns the job's id."""
    answer = httpx.post(f"{server_url}/api/episodes", params={"title": name, "filename": name}, content=content)
    answer.raise_for_status()
    return int(answer.json()["job_id"])


def jobs(server_url: str) -> dict[int, dict[str, Any]]:
    """Every job's row."""
    rows = httpx.get(f"{server_url}/api/queue/all", params={"limit": 1000}).raise_for_status().json()["jobs"]
    return {row["job_id"]: row for row in rows}


def statuses(server_url: str) -> list[str]:
    """Every job's status, by id."""
    return [row["status"] for _, row in sorted(jobs(server_url).items())]


def nodes(server_url: str) -> list[dict[str, Any]]:
    """Every registered node."""
    found: list[dict[str, Any]] = httpx.get(f"{server_url}/api/nodes").raise_for_status().json()["nodes"]
    return found


def transcript(server_url: str, episode_id: int) -> str:
    """What the server stores."""
    return httpx.get(f"{server_url}/api/episodes/{episode_id}/transcript").raise_for_status().text


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _group_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[2])
