"""The jobs in this node's hands, from claim to acceptance, and the lock that guards them. Used by all loops.

A heartbeat lists every one of them; the server takes back what is not listed. So claim and heartbeat share one lock: a
heartbeat built before a claim and handled after it would give the new job away.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from pathlib import Path

SENDING_LIMIT = 5


class Stage(StrEnum):
    """Where a held job is."""

    FETCHING = "fetching"
    WAITING = "waiting"
    RUNNING = "running"
    SENDING = "sending"
    LEAVING = "leaving"  # being given back; whatever works on it lets go


@dataclass(slots=True)
class Held:
    """One job. `audio_s` is known once the audio is decoded."""

    job_id: int
    title: str = ""
    stage: Stage = Stage.FETCHING
    audio_s: float | None = None
    done_s: float = 0.0
    pcm: Path | None = None
    scope: anyio.CancelScope | None = None

    def remaining_s(self) -> float:
        """Seconds of audio that the engine still has to do."""
        return max(0.0, (self.audio_s or 0.0) - self.done_s)


class Holdings:
    """Held jobs in the order in which they came."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self._jobs: dict[int, Held] = {}

    def __len__(self) -> int:
        """How many are held."""
        return len(self._jobs)

    def __contains__(self, job_id: int) -> bool:
        """Whether this one is."""
        return job_id in self._jobs

    def has(self, job: Held) -> bool:
        """Whether it is still this claim of the job, and not a later one of the same job."""
        return self._jobs.get(job.job_id) is job

    def add(self, job: Held) -> None:
        """From now on every heartbeat lists it."""
        self._jobs[job.job_id] = job

    def drop(self, job_id: int) -> None:
        """No longer ours; whatever works on it stops."""
        job = self._jobs.pop(job_id, None)
        if job is not None and job.scope is not None:
            job.scope.cancel()

    def ids(self) -> tuple[int, ...]:
        """For the heartbeat."""
        return tuple(self._jobs)

    def at(self, *stages: Stage) -> list[Held]:
        """Those that are at one of these stages."""
        return [job for job in self._jobs.values() if job.stage in stages]

    def running(self) -> Held | None:
        """The one that the engine has."""
        return next(iter(self.at(Stage.RUNNING)), None)

    def has_room(self, *, jobs: int, audio_s: float) -> bool:
        """Whether one more may be claimed: at most `jobs` wait, and at most `audio_s` of audio is before the engine.

        A job whose length is not known yet counts as too much. An engine without work always has room, and none
        when the server takes no transcripts.
        """
        if len(self.at(Stage.SENDING)) >= SENDING_LIMIT:
            return False
        ahead = self.at(Stage.FETCHING, Stage.WAITING)
        running = self.at(Stage.RUNNING)
        if not ahead and not running:
            return True
        if len(ahead) >= jobs or any(job.audio_s is None for job in ahead):
            return False
        return sum(job.remaining_s() for job in ahead + running) < audio_s
