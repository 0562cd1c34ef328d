"""Commands as process trees that end when told, and when the cloud dies. Called by `containers` and `sshd`.

Each command runs under a `launcher` of its own, which holds one end of a socket pair; closing the other end, or dying
with it open, kills the tree.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
MAX_LINE_BYTES = 1 << 20
LAUNCHER_END_S = 2.0
# What an image holds; here it is this machine's system and the Python that the pods' programs are installed for.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/proc", "/sys", "/dev", "/run", "/var")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, with exactly this environment; it sees the system, its `cwd`, and what is named in `sees`."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    sees: Sequence[str] = ()
    with_stdin: bool = False
    keep_orphans: bool = False


class Process:
    """A started command. `pid` is the command's own, and its process group's."""

    def __init__(
        self, launcher: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int
    ) -> None:
        if launcher.stdout is None or launcher.stderr is None:
            raise ValueError("a launcher has both outputs piped")
        self.pid = pid
        self.stdin = launcher.stdin
        self.stdout: asyncio.StreamReader = launcher.stdout
        self.stderr: asyncio.StreamReader = launcher.stderr
        self._launcher = launcher
        self._writer = writer
        self._exit = asyncio.ensure_future(self._read_exit(reader))

    async def wait(self) -> int:
        """The command's exit code (128 + signal); its outputs may still hold unread bytes."""
        return await asyncio.shield(self._exit)

    def terminate(self) -> None:
        """SIGTERM to the command's process group."""
        with contextlib.suppress(OSError):
            self._writer.write(b"t")

    async def gone(self) -> None:
        """Wait until the command and everything that it left running are over."""
        await self._launcher.wait()
        self._writer.close()

    async def kill(self) -> None:
        """SIGKILL to the whole tree; returns when it is gone."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._launcher.wait(), LAUNCHER_END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._launcher.kill()
        await asyncio.wait([self._exit])

    async def _read_exit(self, reader: asyncio.StreamReader) -> int:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                word, _, code = line.decode().partition(" ")
                if word == "exit":
                    return int(code)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # the launcher is gone: what it did not take with it goes now
        return 128 + signal.SIGKILL


async def start(command: Command) -> Process:
    """Start a command; cancelled half-way it leaves nothing running. A command that cannot be run exits with 127."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            launcher = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(theirs.fileno())),
                stdin=PIPE if command.with_stdin else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=[theirs.fileno()],
                env={},
                cwd="/",
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
        except BaseException:
            ours.close()
            raise
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        writer.write(_order(command))
        pid = await _read_pid(reader)
    except BaseException:
        writer.close()  # the launcher sees the end of file and kills what it started
        raise
    return Process(launcher, reader, writer, pid)


def resolve(program: str, path: str) -> str:
    """The program beside this Python, else on PATH, else its bare name (which fails with a clear line)."""
    if "/" in program:
        return program
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program, path=path) or program


def _order(command: Command) -> bytes:
    order = {
        "argv": list(command.argv),
        "env": dict(command.env),
        "cwd": str(command.cwd),
        "sees": [*SYSTEM, *_python(), *_named(command.argv), *command.sees],
        "keep_orphans": command.keep_orphans,
    }
    return json.dumps(order).encode() + b"\n"


def _python() -> list[str]:
    """This interpreter and its packages; editable ones lie elsewhere."""
    return [sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry.startswith("/"))]


def _named(argv: Sequence[str]) -> list[str]:
    """Files that the command line names: a program or script of a test, say."""
    return [word for word in argv if word.startswith("/") and Path(word).is_file()]


async def _read_pid(reader: asyncio.StreamReader) -> int:
    word, _, pid = (await reader.readline()).decode().partition(" ")
    if word != "pid":
        raise OSError("a launcher ended before it started its command")
    return int(pid)
