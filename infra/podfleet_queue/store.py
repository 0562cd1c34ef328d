"""The queue's memory: each verb is one transaction on SQLite, decided by `jobs`, recorded in `events`.

Called by the routes from many threads at once. One connection behind one lock: a claim reads and writes inside a
single `BEGIN IMMEDIATE`, so a job is never handed out twice. Every commit is on disk before it is answered; after
kill -9 the folder opens as it was after the last answer. Leases that have run out are taken back at the start of the
next verb that could notice: no timer thread, and tests set the clock.
"""

import hashlib
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from podfleet_queue import jobs, tables
from podfleet_queue.errors import (
    BadKeyError,
    ConflictError,
    EmptyTranscriptError,
    NotFoundError,
    NotOwnerError,
    ServeError,
)
from podfleet_queue.files import QueueFolder
from podfleet_queue.jobs import Job, JobStatus, Policy
from podfleet_queue.tables import Episode, Event, Node


@dataclass(frozen=True, slots=True)
class Registration:
    """What a node gets when it registers; the key is not stored, only its hash."""

    node: Node
    api_key: str
    reused: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a node tells about itself; `held_job_ids` None means: nothing said, nothing released."""

    current_job_id: int | None = None
    held_job_ids: frozenset[int] | None = None
    name: str | None = None
    whisper_model: str | None = None
    whisper_backend: str | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job with what a person wants beside it."""

    job: Job
    episode: Episode
    owner: Node | None
    completed_by: str | None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with its state, which is computed and never stored."""

    node: Node
    status: str
    held_jobs: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the queue."""

    counts: dict[JobStatus, int]
    claimable: list[JobRow]
    running: list[JobRow]
    queued: list[JobRow]


class Store:
    """The queue in one folder. Methods raise `RequestError` with the wire's status and text."""

    def __init__(self, root: Path, policy: Policy | None = None, clock: Callable[[], float] = time.time) -> None:
        self.folder = QueueFolder(root)
        self.policy = policy or Policy()
        self._clock = clock
        self._mutex = threading.Lock()
        try:
            self._lock = self.folder.lock()
            self.folder.prepare()
            self._connection = tables.connect(self.folder.database)
        except (OSError, sqlite3.Error) as error:
            raise ServeError(f"cannot use the queue folder {root}: {error}") from error

    def close(self) -> None:
        """Close the database and leave the folder to the next server."""
        with self._mutex:
            self._connection.close()
            self._lock.close()

    def is_healthy(self) -> bool:
        """Whether the database takes a transaction."""
        try:
            with self._transaction() as (tx, _):
                tables.count_by_status(tx)
        except sqlite3.Error:
            return False
        return True

    # --- nodes

    def register(
        self, name: str, url: str, model: str | None = None, backend: str | None = None, priority: int = 10
    ) -> Registration:
        """A new node, or the offline node of that name again: same id, new key, its jobs still its own."""
        key = secrets.token_urlsafe(32)
        with self._transaction() as (tx, now_s):
            reused = self._offline_namesake(tx, name, now_s)
            if reused is not None:
                node = replace(reused, url=url, whisper_model=model, whisper_backend=backend, last_heartbeat_s=None)
                tables.replace_node(tx, node, _digest(key))
            else:
                node = Node(str(uuid.uuid4()), name, url, model, backend, priority, now_s, None, None)
                tables.insert_node(tx, node, _digest(key))
            tables.record(tx, "node.registered", now_s, node=node, more={"reused": reused is not None})
        return Registration(node, key, reused is not None)

    def node_with(self, node_id: str, api_key: str) -> Node:
        """The node, when the key is its own."""
        with self._transaction() as (tx, _):
            node = tables.find_node(tx, node_id)
            if node is None:
                raise NotFoundError("Node not found")
            if tables.node_by_key(tx, _digest(api_key)) != node:
                raise BadKeyError("Invalid API key for this node")
            return node

    def node_of(self, api_key: str) -> Node:
        """The node that this key belongs to."""
        with self._transaction() as (tx, _):
            node = tables.node_by_key(tx, _digest(api_key))
            if node is None:
                raise BadKeyError("Invalid API key")
            return node

    def heartbeat(self, node: Node, beat: Heartbeat) -> None:
        """The node lives. Leases of the jobs it lists are renewed; what it holds and does not list goes back."""
        with self._transaction() as (tx, now_s):
            _still_registered(tx, node)
            tables.describe_node(tx, node.id, beat.name, beat.whisper_model, beat.whisper_backend)
            kept: set[int] = set()
            for job in tables.jobs_of(tx, node.id):
                listed = beat.held_job_ids is None or job.id in beat.held_job_ids
                if not listed:
                    tables.apply(tx, jobs.lose(job, "not in its node's heartbeat"), node, now_s)
                    continue
                kept.add(job.id)
                if beat.held_job_ids is not None or job.id == beat.current_job_id:
                    tables.apply(tx, jobs.renew(job, now_s, self.policy), node, now_s)
            current = beat.current_job_id if beat.current_job_id in kept else None
            tables.touch_node(tx, node, now_s, current)
            self._take_back_expired(tx, now_s)

    def delete_node(self, node_id: str) -> None:
        """Deregister: the node's jobs go back at once, its key is refused from now on."""
        with self._transaction() as (tx, now_s):
            node = tables.find_node(tx, node_id)
            if node is None:
                raise NotFoundError("Node not found")
            self._forget(tx, node, now_s)

    def release_all(self, node: Node) -> int:
        """Hand back everything that the node holds; returns how many jobs."""
        with self._transaction() as (tx, now_s):
            held = tables.jobs_of(tx, node.id)
            for job in held:
                tables.apply(tx, jobs.release(job, "node ends"), node, now_s)
            return len(held)

    def nodes(self) -> list[NodeRow]:
        """Every registered node."""
        with self._transaction() as (tx, now_s):
            held = tables.held_counts(tx)
            return [self._node_row(node, held.get(node.id, 0), now_s) for node in tables.all_nodes(tx)]

    def stale_nodes(self, offline_s: float, *, delete: bool = False) -> list[Node]:
        """Nodes offline for that long or never seen; with `delete` they are deregistered."""
        with self._transaction() as (tx, now_s):
            stale = [
                node
                for node in tables.all_nodes(tx)
                if node.last_heartbeat_s is None or now_s - node.last_heartbeat_s > offline_s
            ]
            for node in stale if delete else ():
                self._forget(tx, node, now_s)
            return stale

    # --- a node's work

    def claim(self, node: Node) -> tuple[Job, Episode] | None:
        """Hand out the next job, or None. The only place where a job gets an owner."""
        with self._transaction() as (tx, now_s):
            _still_registered(tx, node)
            self._take_back_expired(tx, now_s)
            job = tables.next_claimable(tx, now_s)
            if job is None:
                tables.touch_node(tx, node, now_s, node.current_job_id)
                return None
            taken = tables.apply(tx, jobs.claim(job, node.id, now_s, self.policy), node, now_s)
            tables.touch_node(tx, node, now_s, taken.id)
            return taken, _episode_of(tx, taken)

    def job_of(self, node: Node, job_id: int) -> tuple[Job, Episode]:
        """The job and its episode, when the node holds it."""
        with self._transaction() as (tx, _):
            job = _owned(tx, node, job_id)
            return job, _episode_of(tx, job)

    def progress(self, node: Node, job_id: int, percent: int) -> None:
        """Note progress; renews the lease."""
        with self._transaction() as (tx, now_s):
            job = _owned(tx, node, job_id)
            tables.apply(tx, jobs.report_progress(job, percent, now_s, self.policy), node, now_s)
            tables.touch_node(tx, node, now_s, job.id)

    def complete(self, node: Node, job_id: int, transcript: str, model: str | None) -> None:
        """Accept a transcript: file first, then the commit. The first accepted text stays.

        A crash between the two leaves a file that nobody is shown and that the next completion replaces.
        """
        text = transcript.encode()
        with self._transaction() as (tx, now_s):
            job = _owned(tx, node, job_id)
            step = jobs.complete(job, now_s)
            if job.status is JobStatus.RUNNING:
                if not jobs.has_words(transcript):
                    raise EmptyTranscriptError
                self.folder.write_transcript(job.episode_id, text)
                sha256 = hashlib.sha256(text).hexdigest()
                tables.set_transcript(tx, job, node.name, model or "unknown", sha256)
                step = replace(step, reason=sha256)
            tables.apply(tx, step, node, now_s)

    def fail(self, node: Node, job_id: int, error_message: str, *, retry: bool) -> None:
        """The node could not do it: back with a delay, or failed for good."""
        with self._transaction() as (tx, now_s):
            job = _owned(tx, node, job_id)
            step = jobs.fail(job, error_message, retry=retry, now_s=now_s, policy=self.policy)
            tables.apply(tx, step, node, now_s)

    def release(self, node: Node, job_id: int) -> None:
        """The node hands the job back unharmed."""
        with self._transaction() as (tx, now_s):
            tables.apply(tx, jobs.release(_owned(tx, node, job_id), "by its node"), node, now_s)

    # --- episodes

    def add_episode(
        self, upload: Path, title: str, filename: str, suffix: str, audio_s: float | None
    ) -> tuple[int, int]:
        """Queue an uploaded audio file; returns (episode id, job id)."""
        with self._transaction() as (tx, now_s):
            episode = tables.insert_episode(tx, title, filename, suffix, audio_s, now_s)
            job_id = tables.insert_job(tx, episode.id, 10, self.policy.max_attempts, now_s)
            job = _found(tables.find_job(tx, job_id))
            tables.record(tx, "job.added", now_s, job=job, more={"title": title, "audio_s": audio_s})
            self.folder.keep_audio(upload, episode.audio_file)
        return episode.id, job_id

    def episode(self, episode_id: int) -> tuple[Episode, JobStatus | None]:
        """The episode and how far it is."""
        with self._transaction() as (tx, _):
            episode = tables.find_episode(tx, episode_id)
            if episode is None:
                raise NotFoundError("Episode not found")
            return episode, tables.episode_status(tx, episode_id)

    def episodes(self) -> list[tuple[Episode, JobStatus | None]]:
        """All episodes, oldest first."""
        with self._transaction() as (tx, _):
            found = tables.all_episodes(tx).values()
            return [(episode, tables.episode_status(tx, episode.id)) for episode in found]

    def transcript_path(self, episode_id: int) -> Path:
        """The accepted transcript's file."""
        episode, status = self.episode(episode_id)
        if status is not JobStatus.COMPLETED or episode.transcript_sha256 is None:
            raise NotFoundError("Transcript not found")
        return self.folder.transcript(episode_id)

    # --- a person's view and hand

    def snapshot(self) -> Snapshot:
        """Counts and jobs, all of one moment."""
        with self._transaction() as (tx, now_s):
            self._take_back_expired(tx, now_s)
            return Snapshot(
                counts=tables.count_by_status(tx),
                claimable=_rows(tx, tables.claimable_jobs(tx, now_s, -1)),
                running=_rows(tx, tables.jobs_with(tx, JobStatus.RUNNING, -1)),
                queued=_rows(tx, tables.jobs_with(tx, JobStatus.QUEUED, -1)),
            )

    def job_rows(self, status: JobStatus | None, limit: int) -> list[JobRow]:
        """Jobs of any or one status."""
        with self._transaction() as (tx, now_s):
            self._take_back_expired(tx, now_s)
            return _rows(tx, tables.jobs_with(tx, status, limit))

    def job_row(self, job_id: int) -> JobRow:
        """One job."""
        with self._transaction() as (tx, now_s):
            self._take_back_expired(tx, now_s)
            return _rows(tx, [_known(tx, job_id)])[0]

    def events(self, since_seq: int, limit: int) -> list[Event]:
        """What happened after `since_seq`."""
        with self._transaction() as (tx, now_s):
            self._take_back_expired(tx, now_s)
            return tables.events_since(tx, since_seq, limit)

    def reset(self, job_id: int) -> None:
        """Take a running job from its node by hand."""
        with self._transaction() as (tx, now_s):
            job = _known(tx, job_id)
            if job.status is not JobStatus.RUNNING:
                raise ConflictError("Job is not running")
            tables.apply(tx, jobs.release(job, "by hand"), _owner(tx, job), now_s)

    def retry(self, job_id: int) -> None:
        """Give a failed job all its attempts again."""
        with self._transaction() as (tx, now_s):
            job = _known(tx, job_id)
            if job.status is not JobStatus.FAILED:
                raise ConflictError("Job is not failed")
            _refuse_second_job(tx, job.episode_id)
            tables.apply(tx, jobs.retry_by_hand(job), None, now_s)

    def enqueue(self, episode_id: int, priority: int) -> Job:
        """A new job for an episode whose jobs have all failed or were deleted."""
        with self._transaction() as (tx, now_s):
            if tables.find_episode(tx, episode_id) is None:
                raise NotFoundError("Episode not found")
            _refuse_second_job(tx, episode_id)
            job_id = tables.insert_job(tx, episode_id, priority, self.policy.max_attempts, now_s)
            job = _found(tables.find_job(tx, job_id))
            tables.record(tx, "job.added", now_s, job=job)
            return job

    def delete_job(self, job_id: int) -> None:
        """Remove a job that is neither running nor completed; recorded, so that it does not look lost."""
        with self._transaction() as (tx, now_s):
            job = _known(tx, job_id)
            if job.status in {JobStatus.RUNNING, JobStatus.COMPLETED}:
                raise ConflictError(f"Job is {job.status.value}")
            tables.delete_job(tx, job_id)
            tables.record(tx, "job.deleted", now_s, job=job)

    # --- below the verbs

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        """The lock, a write transaction, and the time it all happens at."""
        with self._mutex, tables.transaction(self._connection) as tx:
            yield tx, self._clock()

    def _take_back_expired(self, tx: sqlite3.Connection, now_s: float) -> None:
        for job in tables.expired_jobs(tx, now_s):
            tables.apply(tx, jobs.lose(job, "lease ran out"), _owner(tx, job), now_s)

    def _offline_namesake(self, tx: sqlite3.Connection, name: str, now_s: float) -> Node | None:
        namesakes = (node for node in tables.all_nodes(tx) if node.name == name)
        return next((node for node in namesakes if self._is_offline(node, now_s)), None)

    def _is_offline(self, node: Node, now_s: float) -> bool:
        return node.last_heartbeat_s is None or now_s - node.last_heartbeat_s > self.policy.offline_after_s

    def _node_row(self, node: Node, held_jobs: int, now_s: float) -> NodeRow:
        if self._is_offline(node, now_s):
            return NodeRow(node, "offline", held_jobs)
        return NodeRow(node, "busy" if held_jobs else "online", held_jobs)

    def _forget(self, tx: sqlite3.Connection, node: Node, now_s: float) -> None:
        for job in tables.jobs_of(tx, node.id):
            tables.apply(tx, jobs.lose(job, "node deregistered"), node, now_s)
        tables.delete_node(tx, node.id)
        tables.record(tx, "node.deleted", now_s, node=node)


def _owned(tx: sqlite3.Connection, node: Node, job_id: int) -> Job:
    """The job when the node holds it; 404 and 403 otherwise."""
    job = _known(tx, job_id)
    if not jobs.holds(job, node.id):
        raise NotOwnerError
    return job


def _known(tx: sqlite3.Connection, job_id: int) -> Job:
    job = tables.find_job(tx, job_id)
    if job is None:
        raise NotFoundError("Job not found")
    return job


def _still_registered(tx: sqlite3.Connection, node: Node) -> None:
    """The key was checked in an earlier transaction; a job must never go to a node deleted since."""
    if tables.find_node(tx, node.id) is None:
        raise NotFoundError("Node not found")


def _found(job: Job | None) -> Job:
    assert job is not None  # noqa: S101 - read in the transaction that wrote it
    return job


def _owner(tx: sqlite3.Connection, job: Job) -> Node | None:
    return tables.find_node(tx, job.owner_id) if job.owner_id else None


def _episode_of(tx: sqlite3.Connection, job: Job) -> Episode:
    episode = tables.find_episode(tx, job.episode_id)
    if episode is None:
        raise NotFoundError("Episode not found")
    return episode


def _refuse_second_job(tx: sqlite3.Connection, episode_id: int) -> None:
    status = tables.live_status(tx, episode_id)
    if status is not None:
        raise ConflictError(f"Episode already has a {status.value} job", status=409)


def _rows(tx: sqlite3.Connection, found: Sequence[Job]) -> list[JobRow]:
    episodes = tables.all_episodes(tx)
    nodes = {node.id: node for node in tables.all_nodes(tx)}
    names = tables.completed_by(tx)
    return [
        JobRow(
            job=job,
            episode=episodes[job.episode_id],
            owner=nodes.get(job.owner_id or "") if job.status is JobStatus.RUNNING else None,
            completed_by=names.get(job.id),
        )
        for job in found
    ]


def _digest(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
