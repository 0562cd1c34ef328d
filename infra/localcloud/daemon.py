"""The process behind `localcloud up`: two servers in one event loop, over one cloud and one tailnet.

Started as `python -m localcloud.daemon` by `cli` and by `testing`. It tells the starter on a pipe that it is ready, or
in one line why not.
"""

import argparse
import asyncio
import contextlib
import errno
import functools
import importlib
import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from localcloud import facts, runpod_api, tailscale_api
from localcloud.cloud import Cloud
from localcloud.errors import LocalcloudError, PortInUse, StartError
from localcloud.events import EventLog
from localcloud.journal import Journal
from localcloud.keepfirst import KeepFirst
from localcloud.keeping import Keeper, parts
from localcloud.statedir import Running, StateDir
from localcloud.tailnet_state import Tailnet

LOOPBACK = "127.0.0.1"
BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; 0 takes any free port."""

    folder: Path
    runpod_port: int
    tailscale_port: int
    facts_file: Path | None = None
    keep: bool = False
    ready_fd: int | None = None
    stop_on_stdin_eof: bool = False


class Connections:
    """Open client connections by address, so that one can be closed without an answer."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def hang_up(self, scope: Scope) -> None:
        """Close the connection that a request came in on."""
        transport = self._open.get(tuple(scope["client"]))
        if transport:
            transport.abort()

    def protocol(self) -> type[H11Protocol]:
        """uvicorn's HTTP protocol, which reports its connections here."""
        registry = self._open

        class Protocol(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                registry[transport.get_extra_info("peername")] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                registry.pop(self.transport.get_extra_info("peername"), None)
                super().connection_lost(exc)

        return Protocol


class Server(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """The daemon has its own handlers."""
        yield


def main() -> None:
    """Run until SIGTERM or SIGINT; 2 and one line when it cannot start."""
    options = _options()
    try:
        with _held(options) as held:
            asyncio.run(_serve(options, held))
    except LocalcloudError as error:
        _report(options, {"error": str(error)})
        sys.stderr.write(f"localcloud: {error}\n")
        sys.exit(error.exit_code)


@dataclass(frozen=True, slots=True)
class Held:
    """What was taken before anything was started: the lock, the ports, the facts."""

    state: StateDir
    runpod_socket: socket.socket
    tailscale_socket: socket.socket
    facts: facts.Facts


@contextlib.contextmanager
def _held(options: Options) -> Any:
    state = StateDir(options.folder)
    state.make()
    with (
        state.lock(),
        _listening(options.runpod_port, "RunPod") as runpod,
        _listening(options.tailscale_port, "Tailscale") as tailscale,
    ):
        loaded = facts.load(options.facts_file)
        yield Held(state, runpod, tailscale, loaded.model_copy(update={"state": "kept"}) if options.keep else loaded)


def _listening(port: int, name: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: else asyncio leaves Nagle on
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise LocalcloudError(f"cannot listen on {LOOPBACK}:{port}: {error.strerror}") from None
        raise PortInUse(f"port {port} (the {name} API) is in use by another program; choose another one") from None
    return sock


async def _serve(options: Options, held: Held) -> None:
    state, kept = held.state, held.facts.state == "kept"
    _clear_leftovers(state, kept)
    events = EventLog(state.events, resume=kept)
    cloud, tailnet = Cloud(state.path, held.facts, events), Tailnet(events)
    cloud.on_reset(tailnet.reset)
    if kept:
        _take_back(state, cloud, tailnet)
    servers = _servers(held, cloud, tailnet)
    running = Running(os.getpid(), _url(held.runpod_socket), _url(held.tailscale_socket))
    stop = _stop_event(options)
    tasks = [asyncio.ensure_future(server.serve(sockets=[sock])) for server, sock in servers.items()]
    watch = asyncio.ensure_future(cloud.watch())
    state.write_running(running)
    events.add("cloud.started", **asdict(running))
    _report(options, asdict(running))
    warm = asyncio.ensure_future(asyncio.to_thread(importlib.import_module, "localcloud.sshd"))
    await stop.wait()
    watch.cancel()
    await (cloud.suspend() if kept else cloud.close("down"))
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*tasks, warm)
    events.add("cloud.stopped")
    cloud.keep()
    state.json.unlink(missing_ok=True)


def _take_back(state: StateDir, cloud: Cloud, tailnet: Tailnet) -> None:
    keeper = Keeper(Journal(state.journal), parts(cloud, tailnet))
    try:
        keeper.restore()
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StartError(f"cannot read {state.journal} ({reason}); without it the account is empty") from None
    cloud.keeper = keeper.keep
    cloud.revive()


def _servers(held: Held, cloud: Cloud, tailnet: Tailnet) -> dict[Server, socket.socket]:
    credentials, connections = held.state.credentials(), Connections()
    runpod = runpod_api.create_app(cloud, credentials.runpod_api_key, connections.hang_up)
    door = tailscale_api.TailscaleCredentials(
        credentials.tailscale_api_key, credentials.oauth_client_id, credentials.oauth_client_secret
    )
    check = held.facts.check_tag_owners
    tailscale = tailscale_api.create_app(tailnet, door, cloud.events, check_tag_owners=check)
    return {
        _server(runpod, connections): held.runpod_socket,
        _server(KeepFirst(tailscale, cloud.keep), connections): held.tailscale_socket,
    }


def _server(app: Any, connections: Connections) -> Server:
    return Server(
        uvicorn.Config(
            app,
            http=connections.protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=60,
        )
    )


def _stop_event(options: Options) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.stop_on_stdin_eof:
        loop.add_reader(0, functools.partial(_on_stdin, loop, stop))
    return stop


def _on_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        loop.remove_reader(0)
        stop.set()


def _clear_leftovers(state: StateDir, kept: bool) -> None:
    """Disks of pods that died with an earlier cloud go. A new one is empty: earlier events get another name."""
    shutil.rmtree(state.path / "pods", ignore_errors=True)
    (state.path / "pods").mkdir(mode=0o700)
    if state.events.exists() and not kept:
        state.events.replace(state.events.with_name("events.previous.jsonl"))


def _url(sock: socket.socket) -> str:
    return f"http://{LOOPBACK}:{sock.getsockname()[1]}"


def _report(options: Options, news: dict[str, Any]) -> None:
    if options.ready_fd is not None:
        with contextlib.suppress(OSError), os.fdopen(options.ready_fd, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(news) + "\n")
    elif "error" not in news:
        sys.stdout.write(f"RunPod API     {news['runpod_url']}/v2\nTailscale API  {news['tailscale_url']}/api/v2\n")
        sys.stdout.flush()


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m localcloud.daemon")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--runpod-port", type=int, default=8790)
    parser.add_argument("--tailscale-port", type=int, default=8791)
    parser.add_argument("--facts", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--stop-on-stdin-eof", action="store_true")
    args = parser.parse_args()
    return Options(
        folder=args.dir,
        runpod_port=args.runpod_port,
        tailscale_port=args.tailscale_port,
        facts_file=args.facts,
        keep=args.keep,
        ready_fd=args.ready_fd,
        stop_on_stdin_eof=args.stop_on_stdin_eof,
    )


if __name__ == "__main__":
    main()
