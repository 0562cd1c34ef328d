"""Sends finished transcripts until the server has accepted them. Each one is on the disk first. Used by the worker.

It overlaps with the next transcription. After a try whose answer is unknown a job is never failed: the server may have
accepted it, and a late failure would destroy it. A refusal that was answered at once is a failure: given back instead,
the job would come again at once, with the same end, for ever.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import structlog

from podfleet_node.errors import JobLost, NotRegistered, ServerRefused, ServerUnavailable, TranscriptRefused
from podfleet_node.holdings import Held, Stage
from podfleet_node.link import Event
from podfleet_node.schemas import CompleteBody

if TYPE_CHECKING:
    from podfleet_node.desk import Desk
    from podfleet_node.spool import Spool, Spooled

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
UNPROCESSABLE = 422

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Uploads:
    """One task per transcript."""

    def __init__(self, desk: Desk, spool: Spool) -> None:
        self._desk = desk
        self._spool = spool
        self._maybe_accepted: set[int] = set()

    def resume(self) -> list[Spooled]:
        """All that is on the disk; what an earlier worker of this pod finished is held from now on.

        Called before the first heartbeat, and at the end for a worker that never came so far.
        """
        desk, found = self._desk, []
        for entry in self._spool.load():
            if entry.server_url != desk.settings.server_url:
                log.warning("spool.foreign", job_id=entry.job_id)
                self._spool.drop(entry.job_id)
                continue
            found.append(entry)
            if entry.job_id not in desk.holdings:
                desk.holdings.add(Held(entry.job_id, stage=Stage.SENDING, audio_s=entry.audio_s))
                self._maybe_accepted.add(entry.job_id)
                log.info("spool.resumed", job_id=entry.job_id)
        return found

    def keep(self, job: Held, entry: Spooled) -> None:
        """On the disk, then said to be finished."""
        self._spool.put(entry)
        job.stage = Stage.SENDING

    async def send(self, entry: Spooled) -> None:
        """Until accepted, or the job is ours no more."""
        wait_s = FIRST_WAIT_S
        while not await self.try_once(entry):
            await self._desk.clock.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)

    async def try_once(self, entry: Spooled) -> bool:
        """One try; True when there is nothing left to do for this transcript."""
        desk = self._desk
        try:
            await desk.client.complete(
                entry.job_id, CompleteBody(transcript_text=entry.text, whisper_model=entry.model)
            )
        except JobLost:
            desk.lost(entry.job_id, at="complete")
        except ServerUnavailable as err:
            log.warning("complete.unanswered", job_id=entry.job_id, error=err.reason())
            self._maybe_accepted.add(entry.job_id)
            return False
        except NotRegistered:
            desk.stranger()
            return False
        except ServerRefused as err:
            log.warning("complete.refused", job_id=entry.job_id, error=err.reason())
            await self._refused(entry.job_id, err)
        else:
            self._accepted(entry)
        self._spool.drop(entry.job_id)
        self._maybe_accepted.discard(entry.job_id)
        return True

    async def _refused(self, job_id: int, err: ServerRefused) -> None:
        desk = self._desk
        if job_id not in self._maybe_accepted:
            await desk.fail(job_id, err if err.status == UNPROCESSABLE else TranscriptRefused(str(err)))
        elif not await desk.release(job_id):
            desk.drop(job_id, "failed")  # the next heartbeat, without it, says the same

    def _accepted(self, entry: Spooled) -> None:
        desk = self._desk
        desk.accepted += 1
        log.info("job.completed", job_id=entry.job_id, audio_s=round(entry.audio_s, 2), chars=len(entry.text))
        desk.drop(entry.job_id, "completed")
        desk.events.tell(Event.ACCEPTED, job_id=entry.job_id)
