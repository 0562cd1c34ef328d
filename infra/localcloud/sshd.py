"""A real SSH server per pod, with the host key of the pod's own directory. Called by `containers`.

Commands run in the pod's directory with the image's environment (SSH logins do not inherit the pod's), as process
trees of their own; SFTP and SCP see the pod's directory as `/`. Only root with a key of the pod's PUBLIC_KEY gets in.
Imported when the first pod needs it: asyncssh takes longer to load than everything else together.
"""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from localcloud import processes

USER = "root"
CHUNK_BYTES = 65536
SILENCE_S = 0.3
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


@dataclass(frozen=True, slots=True)
class SshSpec:
    """One pod's server: where it looks, whom it lets in, what it reports."""

    root: Path
    env: Mapping[str, str]
    authorized_keys: str = field(repr=False)
    on_exec: Callable[[str], None]
    on_exit: Callable[[str, int], None]
    impostor: bool = False
    sees: Sequence[str] = ()


def write_host_key(root: Path) -> str:
    """Make the host key pair in the pod's directory; the public half in OpenSSH form."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    private = root / HOST_KEY
    private.parent.mkdir(parents=True, exist_ok=True)
    key.write_private_key(private)
    private.chmod(0o600)
    public = key.export_public_key().decode().strip()
    private.with_name(private.name + ".pub").write_text(public + "\n", "utf-8")
    return public


class SshServer:
    """The running server and the sessions that it has started."""

    def __init__(self, spec: SshSpec) -> None:
        self._spec = spec
        self._keys = _parse_keys(spec.authorized_keys)
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._sessions: set[processes.Process] = set()
        self._runs: set[asyncio.Task[None]] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Answer on a bound socket."""
        spec = self._spec
        key: Any = asyncssh.generate_private_key("ssh-ed25519") if spec.impostor else str(spec.root / HOST_KEY)
        self._acceptor = await asyncssh.listen(
            sock=sock,
            server_factory=self._door,
            server_host_keys=[key],
            process_factory=self._session,
            sftp_factory=lambda chan: asyncssh.SFTPServer(chan, chroot=str(spec.root).encode()),
            allow_scp=True,
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
        )

    async def close(self) -> None:
        """Close connections and kill what sessions left running."""
        if self._acceptor:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        await asyncio.gather(*(session.kill() for session in list(self._sessions)))

    def _door(self) -> Any:
        keys = self._keys

        class Door(asyncssh.SSHServer):
            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return username == USER and key.public_data in keys

        return Door()

    async def _session(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        words = channel.command or ""
        self._spec.on_exec(words)
        shell = shutil.which("bash") or "/bin/sh"
        argv = [shell, "-c", words] if words else [shell]
        spec = self._spec
        command = processes.Command(argv, spec.env, spec.root, spec.sees, with_stdin=True, keep_orphans=True)
        process = await processes.start(command)
        # The command outlives a client that goes away, as under a real sshd; only this server's end is its end.
        self._sessions.add(process)
        run = asyncio.ensure_future(self._run(words, channel, process))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    async def _run(self, words: str, channel: asyncssh.SSHServerProcess[bytes], process: processes.Process) -> None:
        feed = asyncio.ensure_future(_feed(channel, process))
        pumps = [Pump(process.stdout, channel.stdout), Pump(process.stderr, channel.stderr)]
        try:
            code = await process.wait()
            self._spec.on_exit(words, code)
            await settled(pumps)
            channel.exit(code)
            await process.gone()
        finally:
            feed.cancel()
            for pump in pumps:
                pump.task.cancel()
            self._sessions.discard(process)


class Pump:
    """Carries one output to the client; goes on reading when the client has gone, so that the command never blocks."""

    def __init__(self, source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
        self.carried_bytes = 0
        self.sending = False
        self.task = asyncio.ensure_future(self._carry(source, sink))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            self.sending = True
            with contextlib.suppress(OSError):
                sink.write(chunk)
                await sink.drain()
            self.carried_bytes += len(chunk)
            self.sending = False


async def settled(pumps: list[Pump]) -> None:
    """Wait for the end of the outputs, or, where a background process holds them open, until they are silent."""
    while True:
        before = [pump.carried_bytes for pump in pumps]
        _, open_tasks = await asyncio.wait([pump.task for pump in pumps], timeout=SILENCE_S)
        busy = any(pump.sending for pump in pumps) or before != [pump.carried_bytes for pump in pumps]
        if not open_tasks or not busy:
            return


async def _feed(channel: asyncssh.SSHServerProcess[bytes], process: processes.Process) -> None:
    stdin = process.stdin
    if stdin is None:
        return
    with contextlib.suppress(OSError):
        while True:
            try:
                chunk = await channel.stdin.read(CHUNK_BYTES)
            except asyncssh.SignalReceived:
                process.terminate()
                continue
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            if not chunk:
                break
            stdin.write(chunk)
            await stdin.drain()
        stdin.close()


def _parse_keys(text: str) -> frozenset[bytes]:
    keys = set()
    for line in text.splitlines():
        with contextlib.suppress(asyncssh.KeyImportError):
            keys.add(asyncssh.import_public_key(line).public_data)
    return frozenset(keys)
