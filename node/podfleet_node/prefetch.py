"""Claims a job, fetches its audio and decodes it, ahead of the engine and bounded. Used by the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import structlog

from podfleet_node.audio import decode
from podfleet_node.errors import (
    AudioBroken,
    DecoderFailed,
    JobLost,
    NodeError,
    NotRegistered,
    ServerRefused,
    ServerUnavailable,
)
from podfleet_node.holdings import Held, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from podfleet_node.desk import Desk

STOP_GRACE_S = 0.25

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Prefetch:
    """`ready` gets every job whose audio lies decoded on the disk."""

    def __init__(self, desk: Desk, ready: Callable[[Held], None]) -> None:
        self._desk = desk
        self._ready = ready

    def has_room(self, speed: float) -> bool:
        """At most some jobs, and at most the audio that the engine does in some seconds at its measured speed."""
        settings = self._desk.settings
        return self._desk.holdings.has_room(jobs=settings.prefetch_jobs, audio_s=settings.prefetch_audio_s * speed)

    async def claim(self) -> Held | None:
        """Ask for one job. A lost answer may have been a job: a heartbeat at once gives it back."""
        desk = self._desk
        async with desk.holdings.lock:
            try:
                answer = await desk.client.claim(desk.identity.node_id)
            except NotRegistered:
                desk.stranger()
                self._unanswered()
                return None
            except (ServerUnavailable, ServerRefused) as err:
                log.warning("claim.unanswered", error=err.reason())
                desk.beat_bell.ring()
                self._unanswered()
                return None
            if not answer.has_job or answer.job_id is None:
                desk.activity = desk.activity.empty(desk.now_s(), desk.settings.empty_queue_wait_s)
                return None
            desk.activity = desk.activity.claimed(desk.now_s())
            if answer.job_id in desk.holdings:
                log.warning("job.claimed_again", job_id=answer.job_id)  # it was taken back and is ours once more
                return None
            job = Held(answer.job_id, title=answer.episode_title or "")
            desk.holdings.add(job)
        log.info("job.claimed", job_id=job.job_id, title=job.title)
        return job

    def _unanswered(self) -> None:
        self._desk.activity = self._desk.activity.unanswered(self._desk.now_s())

    async def fetch(self, job: Held) -> None:
        """Download and decode; what goes wrong is said to the server. Ends early when the job is dropped."""
        desk = self._desk
        try:
            with anyio.CancelScope() as job.scope:
                await self._fetch(job)
        except JobLost:
            desk.lost(job.job_id, at="audio")
        except NotRegistered:
            desk.stranger()
            desk.lost(job.job_id, at="audio")
        except NodeError as err:
            await desk.fail(job.job_id, err)
        else:
            if job.stage is Stage.FETCHING and desk.holdings.has(job):
                job.stage = Stage.WAITING
                self._ready(job)
        desk.claim_bell.ring()

    async def _fetch(self, job: Held) -> None:
        folder = self._desk.folder(job.job_id)
        folder.mkdir(parents=True, exist_ok=True)
        source, target = folder / "download", folder / "audio.s16le"
        size = await self._desk.client.download(job.job_id, source)
        try:
            job.audio_s = await decode(self._desk.decoder, source, target)
        except (AudioBroken, DecoderFailed):
            await self._desk.clock.sleep(STOP_GRACE_S)  # a SIGTERM to the whole group ends the decoder, too
            raise
        source.unlink(missing_ok=True)
        job.pcm = target
        log.info("job.fetched", job_id=job.job_id, bytes=size, audio_s=round(job.audio_s, 2))
