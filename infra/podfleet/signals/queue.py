"""The transcription server's queue: jobs that could be claimed now, and what the nodes hold. Called by the reconciler.

Works with podfleet's own queue server and with cast2md. The number in `/api/queue/status` counts retries that wait for
their time; `/api/queue` lists only what is due, so claimable jobs come from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from podfleet.scaling import Demand
from podfleet.signals.server import Server, Wire

ALL_JOBS: dict[str, str | int] = {"job_type": "transcribe", "limit": 100_000}


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node. `idle`: it is online and holds no job. `beat_s`: its last heartbeat, epoch, where known."""

    name: str
    online: bool
    idle: bool
    beat_s: float | None = None


class _Job(Wire):
    status: str = "queued"
    attempts: int = 0
    max_attempts: int = 10


class _Jobs(Wire):
    jobs: list[_Job]


class _Counts(Wire):
    running: int


class _Status(Wire):
    transcribe_queue: _Counts


class _Node(Wire):
    name: str
    status: str
    last_heartbeat: str | None = None
    current_job_id: int | None = None
    held_jobs: int | None = None  # podfleet's queue server tells it, cast2md does not


class _Nodes(Wire):
    nodes: list[_Node]


class QueueSignal(Server):
    """Reads one server. Every method raises SignalError when the answer is missing or not understood."""

    def demand(self, *, now_s: float) -> Demand:
        """Claimable and running jobs, observed now."""
        jobs = self._read("/api/queue", _Jobs, ALL_JOBS).jobs
        claimable = sum(1 for job in jobs if job.status == "queued" and job.attempts < job.max_attempts)
        running = self._read("/api/queue/status", _Status).transcribe_queue.running
        return Demand(claimable_jobs=claimable, running_jobs=running, observed_at_s=now_s)

    def nodes(self) -> dict[str, Node]:
        """Registered nodes by name. A name may stand twice (a node that registered again): work in any row counts."""
        found: dict[str, list[_Node]] = {}
        for row in self._read("/api/nodes", _Nodes).nodes:
            found.setdefault(row.name, []).append(row)
        return {name: _node(name, rows) for name, rows in found.items()}


def _node(name: str, rows: list[_Node]) -> Node:
    online = [row for row in rows if row.status != "offline"]
    beats = [at_s for row in rows if (at_s := _epoch_s(row.last_heartbeat)) is not None]
    idle = bool(online) and all(map(_is_idle, online))
    return Node(name, bool(online), idle, max(beats, default=None))


def _epoch_s(text: str | None) -> float | None:
    """None also for a time without its offset, as cast2md sends it: nobody can compare it."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo else None


def _is_idle(node: _Node) -> bool:
    held = node.held_jobs if node.held_jobs is not None else int(node.current_job_id is not None)
    return node.status == "online" and held == 0
