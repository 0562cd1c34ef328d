"""The store on a real SQLite file with an injected clock: leases, threads, restarts."""

import hashlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.podfleet_queue.strategies import POLICY, TEXT

from podfleet_queue import tables
from podfleet_queue.errors import (
    BadKeyError,
    ConflictError,
    EmptyTranscriptError,
    NotFoundError,
    NotOwnerError,
    ServeError,
)
from podfleet_queue.files import download_name, safe_suffix
from podfleet_queue.jobs import JobStatus
from podfleet_queue.store import Heartbeat, Store
from podfleet_queue.tables import Node


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = Store(tmp_path / "queue", POLICY, clock)
    yield opened
    opened.close()


def add(store: Store, count: int = 1) -> list[int]:
    job_ids = []
    for number in range(count):
        upload = store.folder.new_upload()
        upload.write_bytes(b"audio")
        job_ids.append(store.add_episode(upload, f"episode {number}", "a.opus", ".opus", 60.0)[1])
    return job_ids


def node(store: Store, name: str = "n1") -> Node:
    return store.register(name, "http://x").node


def claim_id(store: Store, worker: Node) -> int:
    got = store.claim(worker)
    assert got is not None
    return got[0].id


def kinds(store: Store) -> Counter[str]:
    return Counter(event.kind for event in store.events(0, 100_000))


def test_a_silent_node_loses_its_job_when_the_lease_runs_out(store: Store, clock: FakeClock) -> None:
    add(store)
    first, second = node(store, "n1"), node(store, "n2")
    job_id = claim_id(store, first)
    clock.now_s += POLICY.lease_s - 1
    assert store.claim(second) is None
    clock.now_s += 1
    assert claim_id(store, second) == job_id
    with pytest.raises(NotOwnerError):
        store.complete(first, job_id, TEXT, None)


def test_heartbeats_that_list_the_job_keep_it_for_ever(store: Store, clock: FakeClock) -> None:
    add(store)
    first, second = node(store, "n1"), node(store, "n2")
    job_id = claim_id(store, first)
    for _ in range(10):
        clock.now_s += POLICY.lease_s - 1
        store.heartbeat(first, Heartbeat(held_job_ids=frozenset({job_id})))
        assert store.claim(second) is None


def test_progress_renews_the_lease(store: Store, clock: FakeClock) -> None:
    add(store)
    first, second = node(store, "n1"), node(store, "n2")
    job_id = claim_id(store, first)
    clock.now_s += POLICY.lease_s - 1
    store.progress(first, job_id, 50)
    clock.now_s += POLICY.lease_s - 1
    assert store.claim(second) is None


def test_a_heartbeat_gives_back_what_it_does_not_list(store: Store) -> None:
    add(store, 3)
    worker = node(store)
    held = [claim_id(store, worker) for _ in range(3)]
    store.heartbeat(worker, Heartbeat(held_job_ids=frozenset(held[:1])))
    assert [row.job.id for row in store.snapshot().running] == held[:1]
    assert [row.job.id for row in store.snapshot().claimable] == held[1:]


def test_a_heartbeat_that_says_nothing_about_jobs_releases_nothing(store: Store) -> None:
    add(store)
    worker = node(store)
    claim_id(store, worker)
    store.heartbeat(worker, Heartbeat())
    assert len(store.snapshot().running) == 1


def test_a_heartbeat_cannot_take_another_node_s_job(store: Store) -> None:
    add(store)
    first, second = node(store, "n1"), node(store, "n2")
    job_id = claim_id(store, first)
    store.heartbeat(second, Heartbeat(current_job_id=job_id, held_job_ids=frozenset({job_id, 10**30})))
    assert store.job_of(first, job_id)[0].owner_id == first.id


def test_a_deregistered_node_s_jobs_come_back_at_once(store: Store) -> None:
    add(store)
    first, second = node(store, "n1"), node(store, "n2")
    job_id = claim_id(store, first)
    store.delete_node(first.id)
    assert claim_id(store, second) == job_id


def test_a_node_deleted_between_its_key_check_and_its_claim_gets_no_job(store: Store) -> None:
    add(store)
    worker = node(store)
    store.delete_node(worker.id)
    with pytest.raises(NotFoundError, match="Node not found"):
        store.claim(worker)
    assert len(store.snapshot().claimable) == 1


def test_an_offline_node_that_registers_again_keeps_id_and_jobs_and_loses_its_key(
    store: Store, clock: FakeClock
) -> None:
    add(store)
    before = store.register("n1", "http://x")
    job_id = claim_id(store, before.node)
    clock.now_s += POLICY.offline_after_s + 1
    again = store.register("n1", "http://y")
    assert (again.reused, again.node.id) == (True, before.node.id)
    assert store.job_of(store.node_of(again.api_key), job_id)[0].owner_id == before.node.id
    with pytest.raises(BadKeyError):
        store.node_of(before.api_key)


def test_the_same_name_while_online_is_a_second_node(store: Store) -> None:
    before = store.register("n1", "http://x")
    store.heartbeat(before.node, Heartbeat())
    assert store.register("n1", "http://x").node.id != before.node.id


def test_node_status_follows_heartbeats_and_held_jobs(store: Store, clock: FakeClock) -> None:
    add(store)
    worker = node(store)
    assert [row.status for row in store.nodes()] == ["offline"]
    store.heartbeat(worker, Heartbeat())
    assert [row.status for row in store.nodes()] == ["online"]
    claim_id(store, worker)
    assert [(row.status, row.held_jobs) for row in store.nodes()] == [("busy", 1)]
    clock.now_s += POLICY.offline_after_s + 1
    assert [(row.status, row.held_jobs) for row in store.nodes()] == [("offline", 1)]


def test_the_first_accepted_text_stays(store: Store) -> None:
    add(store)
    worker = node(store)
    job_id = claim_id(store, worker)
    store.complete(worker, job_id, TEXT, "model-a")
    store.complete(worker, job_id, TEXT + "other words", "model-b")
    store.complete(worker, job_id, "", None)
    store.fail(worker, job_id, "late", retry=True)
    store.release(worker, job_id)
    episode, status = store.episode(1)
    assert status is JobStatus.COMPLETED
    assert (episode.transcript_model, episode.transcript_sha256) == (
        "model-a",
        hashlib.sha256(TEXT.encode()).hexdigest(),
    )
    assert store.transcript_path(1).read_text() == TEXT
    assert kinds(store)["job.completed"] == 1
    assert kinds(store)["job.complete_ignored"] == 2
    assert kinds(store)["job.fail_ignored"] == 1


def test_a_wordless_transcript_is_refused_and_the_job_stays_with_its_node(store: Store) -> None:
    add(store)
    worker = node(store)
    job_id = claim_id(store, worker)
    with pytest.raises(EmptyTranscriptError):
        store.complete(worker, job_id, "*Language: en (100.0% confidence)*\n\n", None)
    assert store.job_of(worker, job_id)[0].status is JobStatus.RUNNING
    with pytest.raises(NotFoundError):
        store.transcript_path(1)


def test_a_transcript_that_cannot_be_written_completes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store)
    worker = node(store)
    job_id = claim_id(store, worker)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.folder, "write_transcript", full)
        with pytest.raises(OSError, match="No space"):
            store.complete(worker, job_id, TEXT, None)
    assert store.job_of(worker, job_id)[0].status is JobStatus.RUNNING
    store.complete(worker, job_id, TEXT, None)
    assert store.episode(1)[1] is JobStatus.COMPLETED


def test_completed_by_outlives_its_node(store: Store) -> None:
    add(store)
    worker = node(store, "the-node")
    store.complete(worker, claim_id(store, worker), TEXT, None)
    store.delete_node(worker.id)
    assert [row.completed_by for row in store.job_rows(None, -1)] == ["the-node"]


def test_ten_claims_and_releases_do_no_harm(store: Store) -> None:
    add(store)
    worker = node(store)
    for _ in range(10):
        store.release(worker, claim_id(store, worker))
    assert store.snapshot().claimable[0].job.attempts == 0


def test_failures_wait_and_then_end(store: Store, clock: FakeClock) -> None:
    add(store)
    worker = node(store)
    for wait_s in (10, 50):
        store.fail(worker, claim_id(store, worker), "bad audio", retry=True)
        assert store.claim(worker) is None
        clock.now_s += wait_s
    store.fail(worker, claim_id(store, worker), "bad audio", retry=True)
    row = store.job_rows(JobStatus.FAILED, -1)[0]
    assert (row.job.attempts, row.job.error_message) == (3, "bad audio")
    store.retry(row.job.id)
    assert claim_id(store, worker) == row.job.id


def test_priority_goes_before_age(store: Store, clock: FakeClock) -> None:
    first, second, third = add(store, 3)
    worker = node(store)
    store.delete_job(third)
    urgent = store.enqueue(3, priority=1).id
    clock.now_s += 1
    assert [claim_id(store, worker) for _ in range(3)] == [urgent, first, second]


def test_an_episode_never_has_two_live_jobs(store: Store) -> None:
    add(store)
    with pytest.raises(ConflictError):
        store.enqueue(1, 1)
    worker = node(store)
    job_id = claim_id(store, worker)
    with pytest.raises(ConflictError):
        store.delete_job(job_id)
    store.complete(worker, job_id, TEXT, None)
    with pytest.raises(ConflictError) as refusal:
        store.enqueue(1, 1)
    assert refusal.value.status == 409


def test_a_failed_job_cannot_be_retried_beside_its_successor(store: Store) -> None:
    add(store)
    worker = node(store)
    job_id = claim_id(store, worker)
    store.fail(worker, job_id, "x", retry=False)
    store.enqueue(1, 10)
    with pytest.raises(ConflictError):
        store.retry(job_id)


def test_many_threads_never_get_the_same_job(store: Store) -> None:
    job_ids = add(store, 60)
    workers = [node(store, f"n{number}") for number in range(16)]
    barrier = threading.Barrier(len(workers))

    def drain(worker: Node) -> list[int]:
        barrier.wait()
        got: list[int] = []
        while (claimed := store.claim(worker)) is not None:
            got.append(claimed[0].id)
            store.heartbeat(worker, Heartbeat(held_job_ids=frozenset(got)))
        return got

    with ThreadPoolExecutor(len(workers)) as pool:
        handed_out = [job_id for part in pool.map(drain, workers) for job_id in part]
    assert sorted(handed_out) == sorted(job_ids)
    assert kinds(store)["job.claimed"] == len(job_ids)


def test_a_second_server_cannot_open_the_folder(store: Store) -> None:
    with pytest.raises(ServeError, match="is served by another"):
        Store(store.folder.root, POLICY)


def test_everything_is_there_after_closing_and_opening(tmp_path: Path, clock: FakeClock) -> None:
    first = Store(tmp_path, POLICY, clock)
    add(first, 2)
    worker = node(first)
    job_id = claim_id(first, worker)
    (first.folder.uploads / "broken-off.part").write_bytes(b"half")
    first.close()
    again = Store(tmp_path, POLICY, clock)
    try:
        assert again.job_of(worker, job_id)[0].owner_id == worker.id
        assert len(again.snapshot().claimable) == 1
        assert list(again.folder.uploads.iterdir()) == []
    finally:
        again.close()


def test_the_database_itself_refuses_a_running_job_without_owner(store: Store) -> None:
    add(store)
    other = sqlite3.connect(store.folder.database)
    with pytest.raises(sqlite3.IntegrityError):
        other.execute("UPDATE jobs SET status = 'running'")
    other.close()


def test_a_failed_transaction_leaves_nothing_behind(store: Store) -> None:
    def break_off() -> None:
        with tables.transaction(store._connection) as tx:
            tx.execute("DELETE FROM episodes")
            tx.execute("SELECT nonsense")

    with pytest.raises(sqlite3.OperationalError):
        break_off()
    assert not store._connection.in_transaction
    add(store)
    assert store.is_healthy()


@pytest.mark.parametrize(
    ("filename", "suffix"),
    [("a.opus", ".opus"), ("A.MP3", ".mp3"), ("noext", ".audio"), ("x.a/b", ".audio"), ("x.verylongext", ".audio")],
)
def test_only_plain_extensions_reach_the_disk(filename: str, suffix: str) -> None:
    assert safe_suffix(filename) == suffix


def test_download_names_hold_nothing_dangerous() -> None:
    assert download_name("2026-01-02", "../../etc/pass\nwd", "3.opus") == "2026-01-02_etc_pass_wd.opus"
    assert download_name("2026-01-02", "///", "3.opus") == "2026-01-02_episode.opus"
