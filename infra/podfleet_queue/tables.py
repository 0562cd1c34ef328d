"""The SQLite tables and the statements on them. Every function takes an open transaction; `store` opens it.

Rows become frozen dataclasses here and nowhere else. Times are epoch seconds.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from podfleet_queue.jobs import Job, JobStatus, Step

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS episodes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, filename TEXT NOT NULL, audio_file TEXT NOT NULL,
    audio_s REAL, added_at_s REAL NOT NULL, transcript_sha256 TEXT, transcript_model TEXT
);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, episode_id INTEGER NOT NULL REFERENCES episodes (id),
    created_at_s REAL NOT NULL, scheduled_at_s REAL NOT NULL, max_attempts INTEGER NOT NULL, status TEXT NOT NULL,
    priority INTEGER NOT NULL, attempts INTEGER NOT NULL, progress_percent INTEGER NOT NULL, owner_id TEXT,
    lease_until_s REAL, started_at_s REAL, next_retry_at_s REAL, completed_at_s REAL, error_message TEXT,
    completed_by TEXT,
    CHECK ((status = 'running') = (lease_until_s IS NOT NULL)),
    CHECK (status != 'running' OR owner_id IS NOT NULL),
    CHECK (status NOT IN ('queued', 'failed') OR owner_id IS NULL)
);
CREATE UNIQUE INDEX IF NOT EXISTS one_live_job_per_episode ON jobs (episode_id) WHERE status != 'failed';
CREATE INDEX IF NOT EXISTS jobs_to_claim ON jobs (priority, scheduled_at_s, id) WHERE status = 'queued';
CREATE INDEX IF NOT EXISTS jobs_running ON jobs (lease_until_s) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner_id) WHERE owner_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS nodes (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, url TEXT NOT NULL, whisper_model TEXT, whisper_backend TEXT,
    key_sha256 TEXT NOT NULL UNIQUE, priority INTEGER NOT NULL, registered_at_s REAL NOT NULL,
    last_heartbeat_s REAL, current_job_id INTEGER
);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL NOT NULL, kind TEXT NOT NULL, job_id INTEGER,
    episode_id INTEGER, node_id TEXT, node_name TEXT, more TEXT NOT NULL
);
"""

_JOB_COLUMNS = tuple(Job.__dataclass_fields__)
_JOB_SELECT = "SELECT " + ", ".join(_JOB_COLUMNS) + " FROM jobs "  # noqa: S608 - column names are ours
_JOB_UPDATE = (
    "UPDATE jobs SET " + ", ".join(f"{name} = :{name}" for name in _JOB_COLUMNS if name != "id") + " WHERE id = :id"  # noqa: S608
)

EventValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Episode:
    """One audio file that waits for, or has, a transcript."""

    id: int
    title: str
    filename: str
    audio_file: str
    audio_s: float | None
    added_at_s: float
    transcript_sha256: str | None
    transcript_model: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """One registered node."""

    id: str
    name: str
    url: str
    whisper_model: str | None
    whisper_backend: str | None
    priority: int
    registered_at_s: float
    last_heartbeat_s: float | None
    current_job_id: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the record that tests and people read."""

    seq: int
    ts: float
    kind: str
    job_id: int | None
    episode_id: int | None
    node_id: str | None
    node_name: str | None
    more: Mapping[str, EventValue]


_NODE_SELECT = "SELECT " + ", ".join(Node.__dataclass_fields__) + " FROM nodes "  # noqa: S608
_EPISODE_SELECT = "SELECT " + ", ".join(Episode.__dataclass_fields__) + " FROM episodes "  # noqa: S608


def connect(path: Path) -> sqlite3.Connection:
    """Open (and create) the database: WAL, every commit on disk before it is answered."""
    tx = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    tx.execute("PRAGMA journal_mode = WAL")
    tx.execute("PRAGMA synchronous = FULL")
    tx.execute("PRAGMA foreign_keys = ON")
    tx.executescript(_SCHEMA)
    tx.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return tx


@contextmanager
def transaction(tx: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A write transaction from its first statement on; rolled back on any error."""
    tx.execute("BEGIN IMMEDIATE")
    try:
        yield tx
        tx.execute("COMMIT")
    finally:
        if tx.in_transaction:  # the body failed, or the commit did (disk full)
            tx.execute("ROLLBACK")


# --- jobs


def insert_job(tx: sqlite3.Connection, episode_id: int, priority: int, max_attempts: int, now_s: float) -> int:
    """Queue a new job for the episode; returns its id."""
    row = tx.execute(
        "INSERT INTO jobs (episode_id, created_at_s, scheduled_at_s, max_attempts, status, priority, attempts,"
        " progress_percent) VALUES (?, ?, ?, ?, 'queued', ?, 0, 0) RETURNING id",
        (episode_id, now_s, now_s, max_attempts, priority),
    ).fetchone()
    return int(row[0])


def find_job(tx: sqlite3.Connection, job_id: int) -> Job | None:
    """The job, or None."""
    row = tx.execute(_JOB_SELECT + "WHERE id = ?", (job_id,)).fetchone()
    return _job(row) if row else None


def next_claimable(tx: sqlite3.Connection, now_s: float) -> Job | None:
    """The job that a claim gets: lowest priority number first, then the oldest."""
    row = tx.execute(
        _JOB_SELECT + "WHERE status = 'queued' AND attempts < max_attempts"
        " AND (next_retry_at_s IS NULL OR next_retry_at_s <= ?) ORDER BY priority, scheduled_at_s, id LIMIT 1",
        (now_s,),
    ).fetchone()
    return _job(row) if row else None


def claimable_jobs(tx: sqlite3.Connection, now_s: float, limit: int) -> list[Job]:
    """All jobs that claims would get now, in that order."""
    rows = tx.execute(
        _JOB_SELECT + "WHERE status = 'queued' AND attempts < max_attempts"
        " AND (next_retry_at_s IS NULL OR next_retry_at_s <= ?) ORDER BY priority, scheduled_at_s, id LIMIT ?",
        (now_s, limit),
    )
    return [_job(row) for row in rows]


def jobs_of(tx: sqlite3.Connection, node_id: str) -> list[Job]:
    """The running jobs that the node holds."""
    rows = tx.execute(_JOB_SELECT + "WHERE owner_id = ? AND status = 'running' ORDER BY id", (node_id,))
    return [_job(row) for row in rows]


def expired_jobs(tx: sqlite3.Connection, now_s: float) -> list[Job]:
    """Running jobs whose lease has run out."""
    rows = tx.execute(_JOB_SELECT + "WHERE status = 'running' AND lease_until_s <= ? ORDER BY id", (now_s,))
    return [_job(row) for row in rows]


def jobs_with(tx: sqlite3.Connection, status: JobStatus | None, limit: int) -> list[Job]:
    """Jobs of one status or of any, oldest first."""
    rows = tx.execute(_JOB_SELECT + "WHERE ?1 IS NULL OR status = ?1 ORDER BY id LIMIT ?2", (status, limit))
    return [_job(row) for row in rows]


def count_by_status(tx: sqlite3.Connection) -> dict[JobStatus, int]:
    """How many jobs there are in each status; every status is present."""
    found = dict(tx.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall())
    return {status: int(found.get(status.value, 0)) for status in JobStatus}


def apply(tx: sqlite3.Connection, step: Step, node: Node | None, now_s: float) -> Job:
    """Write what the state machine said, and record it."""
    tx.execute(_JOB_UPDATE, asdict(step.job))
    if step.event is not None:
        more: dict[str, EventValue] = {"attempts": step.job.attempts, "status": step.job.status.value}
        if step.reason:
            more["reason"] = step.reason
        record(tx, step.event, now_s, job=step.job, node=node, more=more)
    return step.job


def completed_by(tx: sqlite3.Connection) -> dict[int, str]:
    """Job id -> name of the node that completed it; the name outlives the node's row."""
    return dict(tx.execute("SELECT id, completed_by FROM jobs WHERE completed_by IS NOT NULL").fetchall())


def _job(row: tuple[object, ...]) -> Job:
    named = dict(zip(_JOB_COLUMNS, row, strict=True))
    named["status"] = JobStatus(str(named["status"]))
    return Job(**named)  # type: ignore[arg-type]


# --- nodes


def insert_node(tx: sqlite3.Connection, node: Node, key_sha256: str) -> None:
    """Add a node's row."""
    tx.execute(
        "INSERT INTO nodes (id, name, url, whisper_model, whisper_backend, key_sha256, priority, registered_at_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            node.id,
            node.name,
            node.url,
            node.whisper_model,
            node.whisper_backend,
            key_sha256,
            node.priority,
            node.registered_at_s,
        ),
    )


def replace_node(tx: sqlite3.Connection, node: Node, key_sha256: str) -> None:
    """A node that registers again under its name: new key, no heartbeat yet, jobs untouched."""
    tx.execute(
        "UPDATE nodes SET url = ?, whisper_model = ?, whisper_backend = ?, key_sha256 = ?, last_heartbeat_s = NULL,"
        " current_job_id = NULL WHERE id = ?",
        (node.url, node.whisper_model, node.whisper_backend, key_sha256, node.id),
    )


def find_node(tx: sqlite3.Connection, node_id: str) -> Node | None:
    """The node, or None."""
    row = tx.execute(_NODE_SELECT + "WHERE id = ?", (node_id,)).fetchone()
    return Node(*row) if row else None


def node_by_key(tx: sqlite3.Connection, key_sha256: str) -> Node | None:
    """The node that this key belongs to, or None."""
    row = tx.execute(_NODE_SELECT + "WHERE key_sha256 = ?", (key_sha256,)).fetchone()
    return Node(*row) if row else None


def all_nodes(tx: sqlite3.Connection) -> list[Node]:
    """Every registered node, oldest first."""
    return [Node(*row) for row in tx.execute(_NODE_SELECT + "ORDER BY registered_at_s, id")]


def held_counts(tx: sqlite3.Connection) -> dict[str, int]:
    """Node id -> number of jobs it holds; nodes without one are left out."""
    return dict(tx.execute("SELECT owner_id, count(*) FROM jobs WHERE status = 'running' GROUP BY owner_id").fetchall())


def touch_node(tx: sqlite3.Connection, node: Node, now_s: float, current_job_id: int | None) -> None:
    """Note that the node is alive, and what it says it works on."""
    tx.execute(
        "UPDATE nodes SET last_heartbeat_s = ?, current_job_id = ? WHERE id = ?", (now_s, current_job_id, node.id)
    )


def describe_node(
    tx: sqlite3.Connection, node_id: str, name: str | None, model: str | None, backend: str | None
) -> None:
    """Overwrite what a heartbeat tells about its node; None leaves a field as it is."""
    tx.execute(
        "UPDATE nodes SET name = coalesce(?, name), whisper_model = coalesce(?, whisper_model),"
        " whisper_backend = coalesce(?, whisper_backend) WHERE id = ?",
        (name, model, backend, node_id),
    )


def delete_node(tx: sqlite3.Connection, node_id: str) -> None:
    """Remove the node's row; its key is refused from now on."""
    tx.execute("DELETE FROM nodes WHERE id = ?", (node_id,))


# --- episodes


def insert_episode(
    tx: sqlite3.Connection, title: str, filename: str, suffix: str, audio_s: float | None, now_s: float
) -> Episode:
    """Add an episode; its audio file is named after its id."""
    row = tx.execute(
        "INSERT INTO episodes (title, filename, audio_file, audio_s, added_at_s) VALUES (?, ?, '', ?, ?) RETURNING id",
        (title, filename, audio_s, now_s),
    ).fetchone()
    tx.execute("UPDATE episodes SET audio_file = ? WHERE id = ?", (f"{row[0]}{suffix}", row[0]))
    episode = find_episode(tx, int(row[0]))
    assert episode is not None  # noqa: S101 - inserted two lines above
    return episode


def find_episode(tx: sqlite3.Connection, episode_id: int) -> Episode | None:
    """The episode, or None."""
    row = tx.execute(_EPISODE_SELECT + "WHERE id = ?", (episode_id,)).fetchone()
    return Episode(*row) if row else None


def all_episodes(tx: sqlite3.Connection) -> dict[int, Episode]:
    """Episode id -> episode."""
    return {int(row[0]): Episode(*row) for row in tx.execute(_EPISODE_SELECT + "ORDER BY id")}


def episode_status(tx: sqlite3.Connection, episode_id: int) -> JobStatus | None:
    """Status of the episode's newest job; None when it has none."""
    row = tx.execute("SELECT status FROM jobs WHERE episode_id = ? ORDER BY id DESC LIMIT 1", (episode_id,)).fetchone()
    return JobStatus(row[0]) if row else None


def live_status(tx: sqlite3.Connection, episode_id: int) -> JobStatus | None:
    """Status of the episode's job that is queued, running or completed; None when there is none."""
    row = tx.execute("SELECT status FROM jobs WHERE episode_id = ? AND status != 'failed'", (episode_id,)).fetchone()
    return JobStatus(row[0]) if row else None


def set_transcript(tx: sqlite3.Connection, job: Job, node_name: str, model: str, sha256: str) -> None:
    """Note whose text was accepted, by which model."""
    tx.execute(
        "UPDATE episodes SET transcript_sha256 = ?, transcript_model = ? WHERE id = ?", (sha256, model, job.episode_id)
    )
    tx.execute("UPDATE jobs SET completed_by = ? WHERE id = ?", (node_name, job.id))


def delete_job(tx: sqlite3.Connection, job_id: int) -> None:
    """Remove a job's row; its events stay."""
    tx.execute("DELETE FROM jobs WHERE id = ?", (job_id,))


# --- events


def record(
    tx: sqlite3.Connection,
    kind: str,
    now_s: float,
    *,
    job: Job | None = None,
    node: Node | None = None,
    more: Mapping[str, EventValue] | None = None,
) -> None:
    """Append one event."""
    tx.execute(
        "INSERT INTO events (ts, kind, job_id, episode_id, node_id, node_name, more) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            now_s,
            kind,
            job.id if job else None,
            job.episode_id if job else None,
            node.id if node else None,
            node.name if node else None,
            json.dumps(more or {}),
        ),
    )


def events_since(tx: sqlite3.Connection, seq: int, limit: int) -> list[Event]:
    """Events after `seq`, in order."""
    rows = tx.execute(
        "SELECT seq, ts, kind, job_id, episode_id, node_id, node_name, more FROM events WHERE seq > ? ORDER BY seq"
        " LIMIT ?",
        (seq, limit),
    )
    return [Event(*(*row[:7], json.loads(row[7]))) for row in rows]
