"""The stand-in engine as a process, with its provider as another: both can be killed, each as the real ones can.

`start` forks the engine, which forks the provider; like Pulumi's, the provider outlives an engine that is killed, and
finds out by `EngineWatch` (parent and port). Output of both goes to a log; `provider.pid` says whom to kill. Called by
`points.run` of a runner that has no threads: a fork is a hundred times cheaper than two new interpreters.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from tools.chaos.engine import Engine
from tools.chaos.program import Declared
from tools.chaos.providers import Providers, RemotePort, serve
from tools.chaos.statefile import StateFile

from podfleet.healing import look_times
from podfleet.logs import quiet_repeats
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.client import Patience, RunpodClient
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.engine import NoEngine, watch_engine
from podfleet.providers.runpod.fleet import unknown_pods
from podfleet.providers.runpod.runtime import build
from podfleet.providers.runpod.settings import ProviderSettings

STOCK_WORKERS = 4
QUICK_PATIENCE = Patience(connect_s=2.0, read_s=2.5, create_read_s=2.5, retry_wait_s=0.05)
GONE_S = 20.0
LOOK_LIMIT_S = 200.0


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the engine. `program` of None destroys."""

    folder: Path
    key: bytes = field(repr=False)
    settings: ProviderSettings
    program: Sequence[Declared] | None = field(default=None, repr=False)
    refresh: bool = False
    patience: Patience = QUICK_PATIENCE
    workers: int = STOCK_WORKERS
    pace: float = 1.0  # how many seconds of the provider's clock pass in one
    prefix: str = ""
    uid: str = ""

    @property
    def log(self) -> Path:
        return self.folder / "engine.log"

    @property
    def state(self) -> StateFile:
        """Tells the cloud's ledger who is owned after each save, where it has such a route."""
        return StateFile(self.folder / "state.json", self.key, self._tell)

    def _tell(self, ids: list[str]) -> None:
        declare_owned(self.settings.base_url, ids, self.prefix)


class Running:
    """An engine that was started: wait for it, or kill it or its provider."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self._folder = folder
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status (negative: the signal), None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, limit_s: float) -> int:
        """Its exit status; TimeoutError after killing it."""
        end_s = time.monotonic() + limit_s
        while (status := self.poll()) is None:
            if time.monotonic() > end_s:
                self.kill_engine()
                self.kill_provider()
                raise TimeoutError(f"the engine did not end within {limit_s:.0f} s")
            time.sleep(0.005)
        return status

    def kill_engine(self) -> None:
        """SIGKILL, and it is gone on return."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)

    def kill_provider(self) -> None:
        """SIGKILL; a no-op where it has ended."""
        kill_pid(self.provider_pid)

    @property
    def provider_pid(self) -> int:
        """0 before it was started."""
        try:
            return int((self._folder / "provider.pid").read_text())
        except (OSError, ValueError):
            return 0


def start(order: Order) -> Running:
    """Fork the engine; returns at once."""
    order.folder.mkdir(parents=True, exist_ok=True)
    (order.folder / "provider.pid").unlink(missing_ok=True)
    return Running(_fork(lambda: _engine(order), order.log), order.folder)


def run(order: Order, limit_s: float = 120.0) -> int:
    """To its end; its exit status."""
    return start(order).wait(limit_s)


def look_again(order: Order, wanted: Sequence[str], interrupted_s: float) -> int:
    """What `podfleet up` and `destroy` do after a killed update: end what its last requests have still rented."""
    return Running(_fork(lambda: _looks(order, wanted, interrupted_s), order.log), order.folder).wait(LOOK_LIMIT_S)


def kill_pid(pid: int) -> None:
    """SIGKILL to a process that may be gone; returns when it is."""
    with contextlib.suppress(ProcessLookupError):
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            end_s = time.monotonic() + GONE_S
            while alive(pid) and time.monotonic() < end_s:
                time.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def declare_owned(base_url: str, ids: list[str], prefix: str) -> None:
    """The ledger of the emulator counts what is not in `ids` as unowned from now on. A dead emulator hears nothing."""
    where = urlsplit(base_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        body = json.dumps({"ids": ids, "prefix": prefix})
        connection.request("POST", "/_emu/ledger/owned", body, {"Content-Type": "application/json"})
        connection.getresponse().read()


def _fork(main: Callable[[], int], log: Path) -> int:
    """A child that runs `main` and nothing of ours after it; its output goes to `log`."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        _speak_to(log)
        status = main()
    except BaseException:  # noqa: BLE001 - the child must not fall into its parent's frames
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _speak_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for each in (1, 2):
        os.dup2(descriptor, each)
    os.close(descriptor)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8")
    quiet_repeats()
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=False)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _engine(order: Order) -> int:
    """The engine's process."""
    door = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair()
    address = f"127.0.0.1:{door.getsockname()[1]}"
    engine_pid = os.getpid()
    provider = os.fork()
    if not provider:
        status = 70
        try:
            door.close()
            ours.close()
            if os.getppid() == engine_pid:
                _provider(order, theirs, address)
                status = 0
        except BaseException:  # noqa: BLE001 - as above
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    (order.folder / "provider.pid").write_text(str(provider))
    threading.Thread(target=_answer_the_door, args=(door,), daemon=True).start()
    engine = Engine(RemotePort(ours), order.state, lambda text: print(f"engine: {text}"))
    if order.program is not None:
        done = engine.update(order.program, refresh=order.refresh)
    else:
        done = (not order.refresh or engine.refresh()) and engine.destroy()
    print(f"engine: {'done' if done else 'failed'}, {len(engine.steps)} changes")
    (order.folder / "changed").write_text(str(len(engine.steps)))
    ours.shutdown(socket.SHUT_RDWR)
    kill_pid(provider)  # as Pulumi does at its own end
    with contextlib.suppress(ChildProcessError):
        os.waitpid(provider, 0)
    return 0 if done else 1


def _looks(order: Order, wanted: Sequence[str], interrupted_s: float) -> int:
    clock = PacedClock(order.pace)
    client = RunpodClient(order.settings.access, clock=clock, patience=order.patience)
    runtime = build(order.settings, client, NoEngine(), clock)
    known = order.state.pod_ids()
    for due_s in look_times(interrupted_s * order.pace, order.settings.reconcile_s, now_s=clock.monotonic_s()):
        clock.sleep(due_s - clock.monotonic_s())
        ours = [pod for pod in runtime.census.now().pods if is_ours(pod, uid=order.uid, prefix=order.prefix)]
        runtime.ending.end(unknown_pods(ours, wanted=wanted, known=known), why="rented by a killed update")
    return 0


def _answer_the_door(door: socket.socket) -> None:
    """The provider knocks to see whether its engine lives."""
    with selectors.DefaultSelector() as ready:
        ready.register(door, selectors.EVENT_READ)
        while True:
            ready.select()
            door.accept()[0].close()


def _provider(order: Order, wire: socket.socket, address: str) -> None:
    """The provider's process: what Pulumi's launcher starts."""
    clock = PacedClock(order.pace)
    client = RunpodClient(order.settings.access, clock=clock, patience=order.patience)
    runtime = build(order.settings, client, watch_engine(["provider", address]), clock)
    serve(wire, Providers(runtime, order.settings), order.workers)


class PacedClock(RealClock):
    """A clock on which waits pass faster: what the provider does in 10 s it does in 10 s ÷ pace."""

    def __init__(self, pace: float) -> None:
        self._pace = pace

    def monotonic_s(self) -> float:
        return super().monotonic_s() * self._pace

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / self._pace)
