"""What the loops of a worker share: settings, client, held jobs, activity; and the ways in which a job leaves it.

Used by prefetch, uploads and worker.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import structlog

from podfleet_node.errors import (
    AudioGone,
    JobLost,
    NodeError,
    NotRegistered,
    ServerRefused,
    ServerUnavailable,
    TemporaryError,
)
from podfleet_node.schemas import FailBody

if TYPE_CHECKING:
    from pathlib import Path

    from podfleet_node.clock import Clock
    from podfleet_node.holdings import Holdings
    from podfleet_node.identity import Identity
    from podfleet_node.jobs_client import JobsClient
    from podfleet_node.lifecycle import Activity
    from podfleet_node.link import EventPipe
    from podfleet_node.metrics import Metrics
    from podfleet_node.paths import Paths
    from podfleet_node.settings import NodeSettings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Bell:
    """Wakes a loop before its time. One loop waits, anyone rings."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Wake the one who waits, or the next who will."""
        self._rung.set()

    def is_rung(self) -> bool:
        """Whether the next wait will end at once."""
        return self._rung.is_set()

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Until rung or `seconds` later."""
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._until_rung, tg.cancel_scope)
            await clock.sleep(seconds)
            tg.cancel_scope.cancel()
        self._rung = anyio.Event()

    async def _until_rung(self, scope: anyio.CancelScope) -> None:
        await self._rung.wait()
        scope.cancel()


@dataclass(slots=True)
class Desk:
    """One per worker; everything runs in one event loop, so plain fields are enough."""

    settings: NodeSettings
    paths: Paths
    clock: Clock
    client: JobsClient
    identity: Identity
    holdings: Holdings
    activity: Activity
    metrics: Metrics
    events: EventPipe
    decoder: str = ""
    unknown_to_server: bool = True
    accepted: int = 0
    last_error: str = ""
    claim_bell: Bell = field(default_factory=Bell)
    beat_bell: Bell = field(default_factory=Bell)

    def now_s(self) -> float:
        """Monotonic."""
        return self.clock.monotonic_s()

    def folder(self, job_id: int) -> Path:
        """Where a job's audio lies."""
        return self.paths.work_dir / str(job_id)

    def drop(self, job_id: int, outcome: str) -> None:
        """A job leaves our hands."""
        self.holdings.drop(job_id)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)
        self.metrics.left(outcome)
        self.claim_bell.ring()

    def lost(self, job_id: int, *, at: str) -> None:
        """Not ours any more: no word to the server, which may have given it to another node."""
        log.info("job.lost", job_id=job_id, at=at)
        self.drop(job_id, "lost")

    def stranger(self) -> None:
        """The server does not know us: the next heartbeat registers again, at once."""
        self.unknown_to_server = True
        self.beat_bell.ring()

    async def fail(self, job_id: int, err: NodeError) -> None:
        """Tell the server why. Audio that the server itself has lost says nothing about this node."""
        self.last_error = err.reason()
        if not isinstance(err, AudioGone):
            self.activity = self.activity.failed()
            self.metrics.failures(self.activity.failures_in_a_row)
        retry = isinstance(err, TemporaryError)
        log.warning("job.failed", job_id=job_id, error=err.reason(), retry=retry)
        try:
            await self.client.fail(job_id, FailBody(error_message=err.reason(), retry=retry))
        except JobLost:
            self.lost(job_id, at="fail")
        except NotRegistered:
            self.stranger()
        except (ServerUnavailable, ServerRefused) as unheard:
            log.warning("job.fail_unheard", job_id=job_id, error=unheard.reason())  # the next beat releases it
        self.drop(job_id, "failed")

    async def release(self, job_id: int) -> bool:
        """Give a job back; True when the server heard it. It does no harm to a job that is completed already."""
        try:
            await self.client.release(job_id)
        except JobLost:
            self.lost(job_id, at="release")
            return True
        except NodeError as err:
            log.warning("job.release_unheard", job_id=job_id, error=err.reason())
            return False
        log.info("job.released", job_id=job_id)
        self.drop(job_id, "released")
        return True
