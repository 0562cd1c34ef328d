"""The working part of a node: claim → fetch → transcribe → spool → send, with heartbeats all the while.

`worker_process` builds one and runs it in a process of its own below the supervisor. All judgement is in `lifecycle`;
here are only loops and their effects.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from podfleet_node.errors import EmptyTranscript, JobLost, NodeError, NotRegistered, ServerRefused, ServerUnavailable
from podfleet_node.holdings import Held, Stage
from podfleet_node.lifecycle import Act, Activity, StopReason, decide
from podfleet_node.lines import Phase, phase_line, ready_line, say
from podfleet_node.link import Event
from podfleet_node.prefetch import Prefetch
from podfleet_node.schemas import HeartbeatBody
from podfleet_node.spool import Spool, Spooled
from podfleet_node.transcript import markdown
from podfleet_node.uploads import Uploads

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from podfleet_node.desk import Desk
    from podfleet_node.engine_host import EngineHost

TICK_S = 1.0
PROGRESS_S = 5.0
BEAT_RETRY_S = 3.0
RELEASE_BUDGET_S = 10.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Worker:
    """One per process. `run` returns why the pod's reasons have ended; everything held is still held then."""

    def __init__(self, desk: Desk, engine: EngineHost, *, metrics_address: str) -> None:
        self._desk = desk
        self._engine = engine
        self._metrics_address = metrics_address
        self._queue_in, self._queue_out = anyio.create_memory_object_stream[Held](float("inf"))
        self.prefetch = Prefetch(desk, self._queue_in.send_nowait)
        self.uploads = Uploads(desk, Spool(desk.paths.spool_dir))
        self._ready_said = False

    async def run(self) -> StopReason:
        """All loops, until one rule says stop. The smoke test has passed."""
        self._sweep()
        resumed = self.uploads.resume()
        self._desk.unknown_to_server = not self._desk.identity.remember()
        self._desk.activity = self._fresh_activity()
        say(phase_line(Phase.CONNECTING, "queue server"))
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._beat_loop)
            tg.start_soon(self._transcribe_loop, tg)
            tg.start_soon(self._progress_loop)
            for entry in resumed:
                tg.start_soon(self.uploads.send, entry)
            reason = await self._claim_loop(tg)
            tg.cancel_scope.cancel()
        return reason

    def _fresh_activity(self) -> Activity:
        """The limits count from now: until here the node could not work. A drain that came earlier still holds."""
        now_s = self._desk.now_s()
        return Activity.started(now_s).drained(now_s) if self._desk.activity.draining else Activity.started(now_s)

    def _sweep(self) -> None:
        """Audio of an earlier worker: its jobs are given back by the first heartbeat."""
        shutil.rmtree(self._desk.paths.work_dir, ignore_errors=True)
        self._desk.paths.work_dir.mkdir(parents=True, exist_ok=True)

    # Claiming, and the rules that end it

    async def _claim_loop(self, tg: TaskGroup) -> StopReason:
        desk = self._desk
        while True:
            desk.activity = desk.activity.holding(len(desk.holdings), desk.now_s())
            room = self._ready_said and not desk.unknown_to_server and self.prefetch.has_room(self._engine.speed)
            action = decide(desk.activity, desk.settings, room=room, now_s=desk.now_s())
            if action.act is Act.STOP and action.reason is not None:
                return action.reason
            if action.act is Act.WAIT:
                await desk.claim_bell.wait(desk.clock, min(TICK_S, action.wait_s))
            elif (job := await self.prefetch.claim()) is not None:
                tg.start_soon(self.prefetch.fetch, job)

    # Heartbeats

    async def _beat_loop(self) -> None:
        desk = self._desk
        while True:
            heard = await self.beat()
            wait_s = desk.settings.heartbeat_s if heard else min(BEAT_RETRY_S, desk.settings.heartbeat_s)
            await desk.beat_bell.wait(desk.clock, wait_s)

    async def beat(self) -> bool:
        """One heartbeat with every job held; registers first where the server does not know us. True when heard."""
        desk = self._desk
        async with desk.holdings.lock:
            try:
                if desk.unknown_to_server:
                    await self._register()
                await self._beat_or_register()
            except (ServerUnavailable, ServerRefused, NotRegistered) as err:
                log.warning("heartbeat.unheard", error=err.reason())
                return False
        self._say_ready()
        return True

    async def _beat_or_register(self) -> None:
        desk = self._desk
        try:
            await desk.client.heartbeat(desk.identity.node_id, self._heartbeat())
        except NotRegistered:
            await self._register()
            await desk.client.heartbeat(desk.identity.node_id, self._heartbeat())

    async def _register(self) -> None:
        desk = self._desk
        desk.unknown_to_server = True
        await desk.identity.register(model=self._engine.model)
        desk.unknown_to_server = False
        log.info("node.registered", node_id=desk.identity.node_id)

    def _heartbeat(self) -> HeartbeatBody:
        holdings = self._desk.holdings
        running = holdings.running()
        return HeartbeatBody(
            name=self._desk.settings.node_name,
            whisper_model=self._engine.model,
            whisper_backend=self._desk.settings.engine,
            current_job_id=running.job_id if running else None,
            claimed_job_ids=holdings.ids(),
        )

    def _say_ready(self) -> None:
        if self._ready_said:
            return
        self._ready_said = True
        desk = self._desk
        say(phase_line(Phase.READY))
        say(
            ready_line(node_id=desk.identity.node_id, metrics=self._metrics_address, engine=desk.settings.engine),
        )
        desk.events.tell(Event.READY, node_id=desk.identity.node_id)
        desk.claim_bell.ring()

    # Transcribing

    async def _transcribe_loop(self, tg: TaskGroup) -> None:
        async for job in self._queue_out:
            if job.stage is not Stage.WAITING or not self._desk.holdings.has(job):
                continue  # given back while it waited
            entry = await self._transcribe(job)
            if entry is not None:
                tg.start_soon(self.uploads.send, entry)
            self._desk.claim_bell.ring()

    async def _transcribe(self, job: Held) -> Spooled | None:
        """From decoded audio to a transcript on the disk; None when the job was dropped or failed."""
        desk = self._desk
        job.stage = Stage.RUNNING
        if not await self._still_ours(job):
            return None
        entry = None
        try:
            with anyio.CancelScope() as job.scope:
                entry = await self._heard(job)
        except NodeError as err:
            await desk.fail(job.job_id, err)
        if entry is None or not self._keeps(job):
            return None
        self.uploads.keep(job, entry)
        desk.activity = desk.activity.succeeded()
        desk.metrics.failures(0)
        return entry

    async def _heard(self, job: Held) -> Spooled:
        desk = self._desk
        assert job.pcm is not None  # noqa: S101 - set by the prefetch before the job is ready
        audio_s = job.audio_s or 0.0
        began_s = desk.now_s()

        def progress(done_s: float) -> None:
            job.done_s = done_s

        transcript = await self._engine.transcribe(job.pcm, audio_s, language=desk.settings.language, progress=progress)
        if not any(char.isalnum() for segment in transcript.segments for char in segment.text):
            raise EmptyTranscript(f"no words in {audio_s:.0f} s of audio")
        took_s = desk.now_s() - began_s
        desk.metrics.transcribed(audio_s=audio_s, took_s=took_s, speed=self._engine.speed)
        log.info("job.transcribed", job_id=job.job_id, audio_s=round(audio_s, 2), took_s=round(took_s, 2))
        text = markdown(transcript)
        return Spooled(job.job_id, text, self._engine.model, audio_s, server_url=desk.settings.server_url)

    async def _still_ours(self, job: Held) -> bool:
        """Ask before the expensive part; a server that is silent now may take the transcript later."""
        try:
            await self._desk.client.progress(job.job_id, 0)
        except JobLost:
            self._desk.lost(job.job_id, at="probe")
            return False
        except NotRegistered:
            self._desk.stranger()
        except (ServerUnavailable, ServerRefused) as err:
            log.warning("probe.unanswered", job_id=job.job_id, error=err.reason())
        return self._keeps(job)

    def _keeps(self, job: Held) -> bool:
        """Still held, and not on its way back to the queue."""
        return job.stage is Stage.RUNNING and self._desk.holdings.has(job)

    async def _progress_loop(self) -> None:
        desk = self._desk
        while True:
            await desk.clock.sleep(PROGRESS_S)
            job = desk.holdings.running()
            if job is None or not job.audio_s:
                continue
            try:
                await desk.client.progress(job.job_id, int(100 * job.done_s / job.audio_s))
            except JobLost:
                desk.lost(job.job_id, at="progress")
            except NotRegistered:
                desk.stranger()
            except (ServerUnavailable, ServerRefused) as err:
                log.warning("progress.unanswered", job_id=job.job_id, error=err.reason())

    # Stopping

    async def drain(self, deadline_s: float) -> dict[str, Any]:
        """Give back what has not begun, let the rest finish; after the deadline give that back, too."""
        desk = self._desk
        desk.activity = desk.activity.drain()
        finished_before = desk.accepted
        released = await self._release(desk.holdings.at(Stage.FETCHING, Stage.WAITING))
        give_up_at_s = desk.now_s() + deadline_s
        while len(desk.holdings) and desk.now_s() < give_up_at_s:
            await desk.clock.sleep(0.1)
        drained = not len(desk.holdings)
        if not drained:
            released += await self._release(desk.holdings.at(*Stage))
        desk.activity = desk.activity.drained(desk.now_s())
        desk.beat_bell.ring()
        return {"drained": drained, "released": released, "finished": desk.accepted - finished_before}

    async def release_all(self) -> bool:
        """Send what is finished once more, give back the rest, deregister. True when all was heard.

        Called after `run`, or instead of it: then what an earlier worker finished is still on the disk.
        """
        await self._engine.close()
        if not self._desk.identity.node_id:
            self._desk.identity.remember()
        entries = {entry.job_id: entry for entry in self.uploads.resume()}
        async with anyio.create_task_group() as tg:
            for job in self._desk.holdings.at(*Stage):
                tg.start_soon(self._let_go, job, entries.get(job.job_id))
        heard = not len(self._desk.holdings)
        if heard:
            heard = await self._deregister()
        return heard

    async def _let_go(self, job: Held, entry: Spooled | None) -> None:
        if entry is None or not await self.uploads.try_once(entry):
            await self._desk.release(job.job_id)

    async def _release(self, jobs: list[Held]) -> int:
        """Take the jobs from whatever works on them, then give them back; returns how many."""
        for job in jobs:
            job.stage = Stage.LEAVING
            if job.scope is not None:
                job.scope.cancel()
        with anyio.move_on_after(RELEASE_BUDGET_S):
            async with anyio.create_task_group() as tg:
                for job in jobs:
                    tg.start_soon(self._desk.release, job.job_id)
        for job in jobs:
            if job.job_id in self._desk.holdings:
                self._desk.drop(job.job_id, "released")  # unheard: the next heartbeat, without it, says the same
        return len(jobs)

    async def _deregister(self) -> bool:
        desk = self._desk
        if not desk.identity.node_id:
            return True
        nothing = HeartbeatBody(name=desk.settings.node_name, claimed_job_ids=())
        try:
            await desk.client.heartbeat(desk.identity.node_id, nothing)  # also what an earlier worker left
            await desk.client.deregister(desk.identity.node_id)
        except NotRegistered:
            log.info("node.unknown")
        except NodeError as err:
            log.warning("node.deregister_unheard", error=err.reason())
            return False
        desk.identity.forget()
        log.info("node.deregistered")
        return True
