"""What this machine's processes say: has the holder of a lock died, and what did a killed engine leave running.

Called by `healing` and `sweeping`. Linux in full (/proc); elsewhere `ps` tells about a lock's holder, and leftovers are
not looked for: they end by themselves (`providers.runpod.engine`).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ENGINE = "pulumi"
OF_AN_ENGINE = ("pulumi", "language_host", "podfleet")  # one of these is in the command line of all that it starts
ADDRESS = re.compile(r"127\.0\.0\.1:(\d{1,5})")
LATER_S = 2.0  # /proc counts in hundredths, the lock's time in seconds, and clocks are put right by a little
GRACE_S = 3.0
POLL_S = 0.05
ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the system shows it; `started_at_s` is None where the system's clock makes no sense."""

    pid: int
    parent: int
    name: str
    started_at_s: float | None = None
    birth: str = ""  # tells it from a later process of the same id


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as the lock says."""

    pid: int
    host: str
    since_s: float


def why_not_dead(holder: Holder, *, host: str, seen: Process | None) -> str:
    """Why the holder may live; empty where it is proven dead. `seen`: the process that has its id now. Pure."""
    if holder.host != host:
        return f"it runs on {holder.host}, which cannot be seen from here"
    if seen is None:
        return ""
    if seen.name == ENGINE:
        return "it is running"
    if seen.started_at_s is None or seen.started_at_s <= holder.since_s + LATER_S:
        return f"process {holder.pid} ({seen.name}) is there"
    return ""


def this_host() -> str:
    """As the engine writes it into a lock."""
    return socket.gethostname()


def look(pid: int) -> Process | None:
    """The process of this id; None where there is none, or only its exit status."""
    if (PROC / "self" / "stat").exists():
        return _from_proc(pid)
    return _from_ps(pid)


def leftovers(marks: Mapping[str, str | None], *, folder: Path) -> list[Process]:
    """What engines of a stack left running when they were killed.

    `marks` are variables that only this stack's processes have so; where they do not tell one checkout from another
    (no value for any but the first), the process has to run in `folder`. A process counts when it was told an engine's
    address, nothing listens there any more, and no ancestor is an engine.
    """
    found = []
    for process in _all():
        words = _words(process.pid)
        if not any(part in word for part in OF_AN_ENGINE for word in words) or process.pid == os.getpid():
            continue
        ports = {int(match[1]) for word in words for match in ADDRESS.finditer(word)}
        if not ports or not _has_marks(process.pid, marks, folder):
            continue
        if not any(map(_listens, ports)) and not _under_an_engine(process):
            found.append(process)
    return found


def end(processes: Sequence[Process], *, sleep: Callable[[float], None] = time.sleep) -> list[Process]:
    """SIGTERM, then SIGKILL; returns when they are gone. Answers those that are not."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            _signal(process, number)
        give_up_s = time.monotonic() + GRACE_S
        while left and time.monotonic() < give_up_s:
            left = [process for process in left if _is_there(process)]
            if left:
                sleep(POLL_S)
    return left


def _from_proc(pid: int) -> Process | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.rpartition(")")
    fields = rest.split()
    if fields[0] == ZOMBIE:
        return None
    return Process(pid, int(fields[1]), name.partition("(")[2], _started_at_s(fields[19]), fields[19])


def _started_at_s(ticks: str) -> float | None:
    """None where not even our own start makes sense: some containers show an uptime of their own."""
    try:
        uptime_s = float((PROC / "uptime").read_text().split()[0])
        ours = (PROC / "self" / "stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return None
    booted_at_s = time.time() - uptime_s
    per_s = os.sysconf("SC_CLK_TCK")
    if int(ours) / per_s > uptime_s + LATER_S:
        return None
    return booted_at_s + int(ticks) / per_s


def _from_ps(pid: int) -> Process | None:
    words = ["ps", "-o", "state=,ppid=,lstart=,comm=", "-p", str(pid)]
    done = subprocess.run(words, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False)
    fields = done.stdout.split(None, 7)
    if len(fields) < 8 or fields[0].startswith(ZOMBIE):
        return None
    started = " ".join(fields[2:7])
    try:
        at_s: float | None = time.mktime(time.strptime(started, "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        at_s = None
    return Process(pid, int(fields[1]), Path(fields[7].strip()).name, at_s, started)


def _all() -> Iterator[Process]:
    if not PROC.is_dir():
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (process := _from_proc(int(entry.name))):
            yield process


def _words(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _has_marks(pid: int, marks: Mapping[str, str | None], folder: Path) -> bool:
    """Only our own user's processes show their environment, and only those may be ended."""
    try:
        lines = (PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
        cwd = (PROC / str(pid) / "cwd").readlink()
    except OSError:
        return False
    theirs = dict(line.partition("=")[::2] for line in lines)
    if any(theirs.get(name) != value for name, value in marks.items()):
        return False
    told_apart = any(list(marks.values())[1:])
    return told_apart or cwd.is_relative_to(folder.resolve())


def _listens(port: int) -> bool:
    """Whether somebody answers there; a busy machine is no proof that nobody does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True


def _under_an_engine(process: Process) -> bool:
    seen: set[int] = set()
    above = _from_proc(process.parent)
    while above and above.pid not in seen:
        if above.name == ENGINE:
            return True
        seen.add(above.pid)
        above = _from_proc(above.parent)
    return False


def _is_there(process: Process) -> bool:
    now = _from_proc(process.pid)
    return now is not None and now.birth == process.birth


def _signal(process: Process, number: int) -> None:
    if _is_there(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return
