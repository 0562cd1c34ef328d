"""What the user sees while set-up works: plain lines on stderr, and long-running programs with a sign of life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVERY_S = 15.0


def say(message: str) -> None:
    print(f"set-up: {message}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Ran:
    """How a program ended, with all that it wrote (both streams, in order)."""

    code: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def last(self) -> str:
        """The last line that says something."""
        return next((line for line in reversed(self.lines) if line.strip()), "no output")


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str],
    cwd: Path | None = None,
    alive: Callable[[list[str], float], str] | None = None,
    timeout_s: float | None = None,
) -> Ran:
    """Run to the end. `alive(lines so far, seconds so far)` gives the line printed every 15 s.

    A program that takes longer than `timeout_s` is ended, with code 124.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        env=dict(env),
        cwd=cwd,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its children can be ended with it
    )
    ran, late = Ran(0), threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(timeout_s, end) if timeout_s else None
    if timer:
        timer.start()
    try:
        with _ticking(ran.lines, alive):
            assert process.stdout  # noqa: S101 - for the type checker: it is a pipe
            ran.lines.extend(line.rstrip("\n") for line in process.stdout)
        process.wait()
    except BaseException:
        _kill(process)
        process.wait()
        raise
    finally:
        if timer:
            timer.cancel()
    ran.code = 124 if late.is_set() else process.returncode
    return ran


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _ticking(lines: list[str], alive: Callable[[list[str], float], str] | None) -> Iterator[None]:
    if not alive:
        yield
        return
    start, done = time.monotonic(), threading.Event()

    def tick() -> None:
        while not done.wait(EVERY_S):
            say(alive(lines, time.monotonic() - start))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
