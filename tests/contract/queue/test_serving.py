"""The server as a process: ready line, ports, signals, kill -9, and many callers at once."""

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.queue.conftest import TEXT, Worker, add, events

from podfleet_queue.testing import RunningQueue, running


def client(queue: RunningQueue) -> httpx.Client:
    return httpx.Client(base_url=queue.url, trust_env=False, timeout=30)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podfleet_queue", "serve", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)


def test_a_port_in_use_is_one_line_and_exit_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = serve("--dir", str(tmp_path), "--port", str(taken.getsockname()[1]))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert "is in use" in refused.stderr


def test_a_folder_in_use_or_not_writable_is_one_line_and_exit_2(tmp_path: Path) -> None:
    with running(tmp_path / "queue"):
        refused = serve("--dir", str(tmp_path / "queue"), "--port", "0")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    (tmp_path / "file").write_text("")
    refused = serve("--dir", str(tmp_path / "file"), "--port", "0")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_it_listens_on_loopback_and_ends_with_0_on_sigterm(tmp_path: Path) -> None:
    with running(tmp_path) as queue:
        assert queue.url.startswith("http://127.0.0.1:")
        assert queue.terminate() == 0
    assert (tmp_path / "queue.log").read_text() == ""


def test_many_callers_never_get_the_same_job(tmp_path: Path) -> None:
    nodes, episodes = 64, 80
    with running(tmp_path) as queue, client(queue) as http:
        for number in range(episodes):
            add(http, title=f"episode {number}")
        barrier = threading.Barrier(nodes)

        def drain(number: int) -> list[int]:
            with client(queue) as own:
                worker = Worker(own, f"node-{number}")
                barrier.wait()
                got = []
                while (answer := worker.node("claim")).json()["has_job"]:
                    got.append(answer.json()["job_id"])
                    assert worker.job(got[-1], "complete", {"transcript_text": TEXT}).status_code == 200
                return got

        with ThreadPoolExecutor(nodes) as pool:
            handed_out = [job_id for part in pool.map(drain, range(nodes)) for job_id in part]
        seen = Counter(event["kind"] for event in events(http))
    assert len(handed_out) == len(set(handed_out)) == episodes
    assert seen["job.added"] == seen["job.claimed"] == seen["job.completed"] == episodes


def test_a_silent_node_s_job_comes_back_after_its_lease(tmp_path: Path) -> None:
    with running(tmp_path, lease_s=0.3) as queue, client(queue) as http:
        add(http)
        job_id = Worker(http).claim()
        second = Worker(http, "node-2")
        deadline_s = time.monotonic() + 10
        while not (answer := second.node("claim").json())["has_job"]:
            assert time.monotonic() < deadline_s
        assert answer["job_id"] == job_id
        assert [e["more"]["reason"] for e in events(http) if e["kind"] == "job.lost"] == ["lease ran out"]


@pytest.mark.parametrize("kill_after_s", [0.15, 0.4])
def test_kill_9_under_load_loses_no_job_and_completes_none_twice(tmp_path: Path, kill_after_s: float) -> None:
    """Every answer that a node got holds after the restart; the database is sound; the rest can still be done."""
    episodes = 40
    accepted: dict[int, str] = {}
    with running(tmp_path) as queue, client(queue) as http:
        for number in range(episodes):
            add(http, title=f"episode {number}")
        threads = [threading.Thread(target=_work_until_it_dies, args=(queue, n, accepted)) for n in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(kill_after_s)
        queue.kill()
        for thread in threads:
            thread.join()
    database = sqlite3.connect(tmp_path / "queue.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    with running(tmp_path) as queue, client(queue) as http:
        for episode_id, text in accepted.items():
            assert http.get(f"/api/episodes/{episode_id}/transcript").text == text
        for node in http.get("/api/nodes").json()["nodes"]:
            http.delete(f"/api/nodes/{node['id']}")
        worker = Worker(http, "the-last")
        while (claimed := worker.node("claim").json())["has_job"]:
            assert worker.job(claimed["job_id"], "complete", {"transcript_text": TEXT}).status_code == 200
        rows = http.get("/api/queue/all", params={"limit": 1000}).json()["jobs"]
        assert Counter(row["status"] for row in rows) == {"completed": episodes}
        _assert_record_is_sound(events(http), episodes)


def _work_until_it_dies(queue: RunningQueue, number: int, accepted: dict[int, str]) -> None:
    with client(queue) as http:
        try:
            worker = Worker(http, f"node-{number}")
            while (claimed := worker.node("claim").json())["has_job"]:
                text = f"**[00:00]** Words of node {number}.\n"
                worker.job(claimed["job_id"], "complete", {"transcript_text": text}).raise_for_status()
                accepted[claimed["episode_id"]] = text
        except httpx.TransportError:
            return


def _assert_record_is_sound(record: list[dict[str, Any]], episodes: int) -> None:
    """From the events alone: between two hand-outs of a job lies its return, and each job is completed once."""
    holder: dict[int, str | None] = {}
    completed: Counter[int] = Counter()
    for event in record:
        job_id = event["job_id"]
        if event["kind"] == "job.claimed":
            assert holder.get(job_id) is None
            assert completed[job_id] == 0
            holder[job_id] = event["node_id"]
        elif event["kind"] in {"job.released", "job.lost", "job.retry", "job.failed"}:
            holder[job_id] = None
        elif event["kind"] == "job.completed":
            assert holder[job_id] == event["node_id"]
            completed[job_id] += 1
    assert list(completed.values()) == [1] * episodes


def test_an_upload_that_breaks_off_queues_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as queue, client(queue) as http:
        port = int(queue.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(
                b"POST /api/episodes?filename=a.opus HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly a part"
            )
        deadline_s = time.monotonic() + 10
        while list((tmp_path / "uploads").iterdir()):
            assert time.monotonic() < deadline_s
        assert http.get("/api/episodes").json()["total"] == 0
        add(http)
        assert http.get("/api/episodes").json()["total"] == 1


def test_running_requests_are_answered_before_the_end(tmp_path: Path) -> None:
    """SIGTERM in the middle of a burst: every caller gets a whole answer or none, and the exit code is 0."""
    with running(tmp_path) as queue, client(queue) as http:
        added = [add(http, title=f"episode {number}")["job_id"] for number in range(10)]
        accepted: dict[int, str] = {}
        threads = [threading.Thread(target=_work_until_it_dies, args=(queue, n, accepted)) for n in range(4)]
        for thread in threads:
            thread.start()
        assert queue.terminate() == 0
        for thread in threads:
            thread.join()
    with running(tmp_path) as queue, client(queue) as http:
        rows = http.get("/api/queue/all").json()["jobs"]
        assert len(rows) == len(added)
        done = {row["episode_id"] for row in rows if row["status"] == "completed"}
        assert set(accepted) <= done
