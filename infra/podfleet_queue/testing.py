"""A real queue server for tests and the demo: a subprocess on a free port, ended with the block.

with running(tmp_path) as queue:
    httpx.get(queue.url + "/api/queue/status")
    queue.kill()                # as kill -9 does
with running(tmp_path) as queue:  # the same folder again
"""

import os
import queue as queues
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_LINE = "podfleet-queue ready "


@dataclass(frozen=True, slots=True)
class RunningQueue:
    """One server process."""

    url: str
    root: Path
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """End it without any chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 10.0) -> int:
        """End it as a service manager would; returns its exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@contextmanager
def running(root: Path, *, start_timeout_s: float = 20.0, **options: object) -> Iterator[RunningQueue]:
    """Serve `root` on a free port. `options` are those of `podfleet-queue serve`: `lease_s=2` is `--lease-s 2`.

    Raises RuntimeError with the server's own words when it does not come up. Its stderr goes to `root/queue.log`.
    """
    root.mkdir(parents=True, exist_ok=True)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {"port": 0, **options}.items()]
    command = [sys.executable, "-m", "podfleet_queue", "serve", "--dir", str(root), *arguments]
    log = root / "queue.log"
    with log.open("a", encoding="utf-8") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=_environment())
    try:
        yield RunningQueue(_ready_url(process, log, start_timeout_s), root, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None  # noqa: S101 - PIPE above
        process.stdout.close()


def _ready_url(process: subprocess.Popen[str], log: Path, timeout_s: float) -> str:
    """The URL of the ready line; a thread reads it, so that a silent server cannot hang the test."""
    assert process.stdout is not None  # noqa: S101 - PIPE above
    lines: queues.Queue[str] = queues.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline() if process.stdout else ""), daemon=True).start()
    try:
        line = lines.get(timeout=timeout_s)
    except queues.Empty:
        line = ""
    if not line.startswith(READY_LINE):
        raise RuntimeError(f"podfleet-queue did not start: {line or log.read_text(encoding='utf-8')[-2000:]}")
    return line.removeprefix(READY_LINE).strip()


def _environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR"}
    }
