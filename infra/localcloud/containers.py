"""One run of a pod: a fresh directory with a host key, the process, its sshd, its log lines. Called by `life`."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud import processes

if TYPE_CHECKING:
    from localcloud import sshd

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the container runs and who may log in."""

    argv: Sequence[str]
    env: dict[str, str] = field(repr=False)
    login_env: dict[str, str] = field(repr=False)
    impostor: bool = False
    sees: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reports:
    """Where the container's news go."""

    line: Callable[[str], None]
    ssh_exec: Callable[[str], None]
    ssh_exit: Callable[[str, int], None]


class Container:
    """Prepared first (directory, host key, ports), then started, then stopped once."""

    def __init__(self, root: Path, tcp_ports: Sequence[int]) -> None:
        self.root = root
        self._sockets = {port: _bound_socket() for port in tcp_ports}
        self.tcp_ports: dict[int, int] = {port: sock.getsockname()[1] for port, sock in self._sockets.items()}
        self._preparing: asyncio.Future[None] | None = None
        self._process: processes.Process | None = None
        self._ssh: sshd.SshServer | None = None
        self._ssh_start: asyncio.Task[None] | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """A clean disk with a new host key pair."""
        self._preparing = asyncio.ensure_future(asyncio.to_thread(_fill_disk, self.root))
        await asyncio.shield(self._preparing)

    async def start(self, plan: Plan, reports: Reports, ssh_after_s: float) -> int:
        """Start the process, and the sshd a little later; the process's id."""
        for port, sock in self._sockets.items():
            if port != 22:
                sock.close()  # the pod listens there itself, if it wants to
        process = await processes.start(processes.Command(plan.argv, plan.env, self.root, plan.sees))
        self._process = process
        for stream in (process.stdout, process.stderr):
            self._readers.append(asyncio.ensure_future(_read_lines(stream, reports.line)))
        if 22 in self._sockets:
            self._ssh = _ssh_server(self.root, plan, reports)
            self._ssh_start = asyncio.ensure_future(self._listen(ssh_after_s))
        return process.pid

    async def wait(self) -> int:
        """The exit code of the process, after its last line was read."""
        if self._process is None:
            raise RuntimeError("the container was not started")
        code = await self._process.wait()
        if self._readers:
            await asyncio.wait(self._readers, timeout=1.0)
        return code

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, a grace, SIGKILL for everything in it; then the sockets. The disk stays."""
        if self._preparing:
            await asyncio.wait([self._preparing])  # a thread cannot be stopped, and must not write after the wipe
        process = self._process
        if process:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
            await process.kill()
        if self._ssh_start:
            self._ssh_start.cancel()
            await asyncio.wait([self._ssh_start])
        if self._ssh:
            await self._ssh.close()
        for sock in self._sockets.values():
            sock.close()
        if self._readers:
            await asyncio.wait(self._readers, timeout=1.0)
        for reader in self._readers:
            reader.cancel()

    async def end_process(self) -> None:
        """SIGKILL to everything in it; `wait` returns."""
        if self._process:
            await self._process.kill()

    async def wipe(self) -> None:
        """Remove the disk."""
        await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)

    async def _listen(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if self._ssh:
            await self._ssh.listen(self._sockets[22])


async def _read_lines(stream: asyncio.StreamReader, report: Callable[[str], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit: the rest comes as another line
            line = await stream.read(processes.MAX_LINE_BYTES)
        if not line:
            return
        report(line.decode("utf-8", "replace").rstrip("\r\n"))


def _bound_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind((LOOPBACK, 0))
    return sock


def _fill_disk(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("etc", "run", "tmp", "root"):
        (root / folder).mkdir(parents=True)
    from localcloud import sshd  # noqa: PLC0415 - slow to load: the daemon does it once it is ready

    sshd.write_host_key(root)


def _ssh_server(root: Path, plan: Plan, reports: Reports) -> "sshd.SshServer":
    from localcloud import sshd  # noqa: PLC0415 - as above

    return sshd.SshServer(
        sshd.SshSpec(
            root=root,
            env=plan.login_env,
            authorized_keys=plan.env.get("PUBLIC_KEY", ""),
            on_exec=reports.ssh_exec,
            on_exit=reports.ssh_exit,
            impostor=plan.impostor,
            sees=plan.sees,
        )
    )
