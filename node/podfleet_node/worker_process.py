"""The worker's process: `podfleet-node worker`, started by the supervisor. Builds the worker, links it, ends it.

What it gets from outside is a mapping with no secret in it; what it is told comes through stdin, what it tells goes up
a pipe. SIGTERM, or the end of stdin, means: release everything now.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from podfleet_node import logs
from podfleet_node.audio import decode, find_decoder, write_silence
from podfleet_node.clock import SystemClock
from podfleet_node.desk import Desk
from podfleet_node.engine_host import SMOKE_AUDIO_S, EngineHost
from podfleet_node.errors import AudioBroken, DecoderFailed, SettingsError, SmokeTestFailed
from podfleet_node.files import read_json
from podfleet_node.holdings import Holdings
from podfleet_node.identity import Identity
from podfleet_node.jobs_client import JobsClient
from podfleet_node.lifecycle import Activity, StopReason
from podfleet_node.lines import Phase, phase_line, say
from podfleet_node.link import Command, Event, EventPipe, Lines
from podfleet_node.metrics import Metrics
from podfleet_node.paths import Paths
from podfleet_node.settings import NodeSettings
from podfleet_node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

BEAT_S = 1.0
TERM_BUDGET_S = 3.3  # SIGTERM leaves 5 s, and the supervisor needs its share
END_BUDGET_S = 15.0

# A change in one of these wants a new worker; all others are taken at once.
RESTART_FIELDS = (
    "root",
    "node_name",
    "server_url",
    "http_proxy",
    "engine",
    "model",
    "metrics_host",
    "metrics_port",
)

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def run(environ: Mapping[str, str], events_fd: int | None) -> int:
    """One life of a worker; 0 when it ended as it wanted to."""
    logs.configure()
    events = EventPipe(events_fd)
    try:
        settings = load_settings(environ)
    except SettingsError as err:
        events.tell(Event.RELEASED)
        events.tell(Event.END, reason=StopReason.SETTINGS, text=f"settings: {err}")
        return 0
    try:
        return anyio.run(_live, environ, settings, events)
    except Exception:  # the outermost loop of this process: the supervisor starts another one
        log.exception("worker.failed")
        return 1


async def _live(environ: Mapping[str, str], settings: NodeSettings, events: EventPipe) -> int:
    return await WorkerProcess(environ, settings, events).run()


def load_settings(environ: Mapping[str, str]) -> NodeSettings:
    """Variables and the settings file; what a worker cannot do without must be there."""
    root = Path(environ.get("PODFLEET_ROOT") or "/")
    settings = NodeSettings.merged(environ, read_json(Paths(root).settings_file) or {})
    if not settings.server_url.startswith(("http://", "https://")):
        raise SettingsError("server_url: must begin with http:// or https://")
    return settings if settings.node_name else settings.model_copy(update={"node_name": socket.gethostname()})


class WorkerProcess:
    """Ties a worker to its process: signals, commands, events."""

    def __init__(self, environ: Mapping[str, str], settings: NodeSettings, events: EventPipe) -> None:
        self._environ = environ
        self._events = events
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._desk = self._make_desk(settings)
        self._engine = EngineHost(settings.engine, settings.model, self._clock)
        self._worker = Worker(self._desk, self._engine, metrics_address=self._serve_metrics())
        self._reason: StopReason | None = None
        self._reason_text = ""
        self._restart = False
        self._scope = anyio.CancelScope()

    def _make_desk(self, settings: NodeSettings) -> Desk:
        paths = Paths(Path(settings.root))
        client = JobsClient(settings.server_url, proxy=settings.http_proxy, on_contact=self._contact)
        desk = Desk(
            settings=settings,
            paths=paths,
            clock=self._clock,
            client=client,
            identity=Identity(paths.identity_file, settings, client),
            holdings=Holdings(),
            activity=Activity.started(self._clock.monotonic_s()),
            metrics=self._metrics,
            events=self._events,
            decoder=find_decoder(self._environ.get("PATH", "")),
        )
        self._metrics.watch(desk.holdings)
        return desk

    def _contact(self) -> None:
        self._desk.activity = self._desk.activity.contact(self._clock.monotonic_s())

    def _serve_metrics(self) -> str:
        """A port that is taken is no reason to end a pod that can work: any free one, and the ready line says which."""
        settings = self._desk.settings
        try:
            port = self._metrics.serve(settings.metrics_host, settings.metrics_port)
        except OSError:
            log.warning("metrics.port_taken", port=settings.metrics_port)
            port = self._metrics.serve(settings.metrics_host, 0)
        return f"{settings.metrics_host}:{port}"

    async def run(self) -> int:
        """Until a rule, a signal or the supervisor ends it; then everything is released."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with self._desk.client:
                async with anyio.create_task_group() as tg:
                    self._scope = tg.cancel_scope
                    tg.start_soon(self._watch_signals, signals)
                    tg.start_soon(self._obey, tg)
                    tg.start_soon(self._beat)
                    await self._work()
                    tg.cancel_scope.cancel()
                await self._leave()
        return 0

    async def _work(self) -> None:
        """Smoke test first: a pod that cannot transcribe never registers."""
        try:
            await self._smoke_test()
        except SmokeTestFailed as err:
            self._stop(StopReason.SMOKE_TEST, f"smoke test: {err}")
            return
        self._stop(await self._worker.run())

    async def _smoke_test(self) -> None:
        desk = self._desk
        say(phase_line(Phase.SMOKE, desk.settings.engine))
        if not desk.decoder:
            raise SmokeTestFailed("neither ffmpeg nor PyAV is in this pod")
        began_s = self._clock.monotonic_s()
        pcm = await self._decoded_silence()
        await self._engine.smoke_test(pcm, language=desk.settings.language)
        log.info("smoke.passed", model=self._engine.model, took_s=round(self._clock.monotonic_s() - began_s, 2))

    async def _decoded_silence(self) -> Path:
        """A second of silence in a file, through the decoder: a pod without a working one is no use either."""
        folder = self._desk.paths.work_dir
        write_silence(folder / "smoke.wav", seconds=SMOKE_AUDIO_S)
        try:
            await decode(self._desk.decoder, folder / "smoke.wav", folder / "smoke.s16le", timeout_s=60.0)
        except (AudioBroken, DecoderFailed) as err:
            raise SmokeTestFailed(str(err)) from None
        return folder / "smoke.s16le"

    async def _leave(self) -> None:
        urgent = self._reason is StopReason.TERMINATED
        released = False
        with anyio.move_on_after(TERM_BUDGET_S if urgent else END_BUDGET_S, shield=True):
            released = await self._worker.release_all()
        if released:
            self._events.tell(Event.RELEASED)
        if self._restart:
            self._events.tell(Event.RESTART)
        elif self._reason is not None and not urgent:
            self._events.tell(Event.END, reason=self._reason, text=self._reason_text)
        log.info("worker.left", reason=self._reason, released=released)

    def _stop(self, reason: StopReason, text: str = "") -> None:
        if self._reason is None:
            self._reason, self._reason_text = reason, text

    # The line to the supervisor

    async def _watch_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for _number in signals:
            self._cancel_work(StopReason.TERMINATED)

    def _cancel_work(self, reason: StopReason) -> None:
        self._stop(reason)
        self._scope.cancel()

    async def _beat(self) -> None:
        while True:
            self._events.tell(Event.BEAT, **self._snapshot())
            await self._clock.sleep(BEAT_S)

    async def _obey(self, tg: anyio.abc.TaskGroup) -> None:
        async for message in _commands():
            if message.get("command") == Command.DRAIN:
                tg.start_soon(self._drain, float(message.get("deadline_s", 0.0)))
            elif message.get("command") == Command.RELOAD:
                self._reload()
        self._cancel_work(StopReason.TERMINATED)  # stdin has ended: the supervisor is gone

    async def _drain(self, deadline_s: float) -> None:
        self._events.tell(Event.DRAINED, **await self._worker.drain(deadline_s))

    def _reload(self) -> None:
        try:
            settings = load_settings(self._environ)
        except SettingsError as err:
            log.error("settings.refused", error=str(err))  # noqa: TRY400 - the message is all there is to say
            return
        before, self._desk.settings = self._desk.settings, settings
        changed = [name for name in RESTART_FIELDS if getattr(before, name) != getattr(settings, name)]
        log.info("settings.reloaded", restart_for=changed)
        if changed:
            self._desk.settings = before  # the old ones hold until everything is released
            self._restart = True
            self._cancel_work(StopReason.TERMINATED)

    def _snapshot(self) -> dict[str, Any]:
        desk = self._desk
        running = desk.holdings.running()
        return {
            "node_id": desk.identity.node_id,
            "node_name": desk.settings.node_name,
            "engine": desk.settings.engine,
            "speed": round(self._engine.speed, 2),
            "held": list(desk.holdings.ids()),
            "running": running.job_id if running else None,
            "completed": desk.accepted,
            "failures_in_a_row": desk.activity.failures_in_a_row,
            "last_error": desk.last_error,
        }


async def _commands() -> AsyncIterator[dict[str, Any]]:
    """Objects from stdin until it ends."""
    lines = Lines()
    descriptor = sys.stdin.fileno()
    os.set_blocking(descriptor, False)
    while True:
        await anyio.wait_readable(descriptor)
        try:
            chunk = os.read(descriptor, 65536)
        except BlockingIOError:
            continue
        if not chunk:
            return
        for message in lines.feed(chunk):
            yield message
