"""cast2md's node protocol against the running server: paths, bodies, status codes and texts of the facts page."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from podfleet_queue.testing import RunningQueue, running

TEXT = "*Language: en (100.0% confidence)*\n\n**[00:00]** The tide comes in twice a day.\n"
pytestmark = pytest.mark.enable_socket


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQueue]:
    with running(tmp_path_factory.mktemp("queue"), retry_s=0) as server:
        yield server


@pytest.fixture
def http(queue: RunningQueue) -> Iterator[httpx.Client]:
    """A client on a queue whose earlier jobs are out of the way."""
    with httpx.Client(base_url=queue.url, trust_env=False) as client:
        for node in client.get("/api/nodes").json()["nodes"]:
            client.delete(f"/api/nodes/{node['id']}")
        for job in client.get("/api/queue/all", params={"status": "queued"}).json()["jobs"]:
            client.delete(f"/api/queue/{job['id']}")
        yield client


class Worker:
    """A node, as the wire sees it."""

    def __init__(self, http: httpx.Client, name: str = "node-1") -> None:
        answer = http.post("/api/nodes/register", json={"name": name, "url": "http://x"}).json()
        self.id, self.key, self.message = answer["node_id"], answer["api_key"], answer["message"]
        self.http = http
        self.headers = {"X-Transcriber-Key": self.key}

    def node(self, call: str, body: object = None) -> httpx.Response:
        return self.http.post(f"/api/nodes/{self.id}/{call}", json=body, headers=self.headers)

    def job(self, job_id: int, call: str, body: object = None) -> httpx.Response:
        return self.http.post(f"/api/nodes/jobs/{job_id}/{call}", json=body, headers=self.headers)

    def audio(self, job_id: int, **headers: str) -> httpx.Response:
        return self.http.get(f"/api/nodes/jobs/{job_id}/audio", headers={**self.headers, **headers})

    def claim(self) -> int:
        return int(self.node("claim").json()["job_id"])


def add(http: httpx.Client, audio: bytes = b"audio bytes", title: str = "Tides") -> dict[str, int]:
    answer = http.post("/api/episodes", params={"title": title, "filename": "t.opus"}, content=audio)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_job_goes_round(http: httpx.Client) -> None:
    added = add(http)
    worker = Worker(http)
    assert worker.message == "Node 'node-1' registered successfully"
    assert len(worker.key) == 43
    assert worker.node("heartbeat", {}).json() == {"status": "ok", "message": "Heartbeat received"}
    claimed = worker.node("claim").json()
    assert claimed == {
        "job_id": added["job_id"],
        "episode_id": added["episode_id"],
        "episode_title": "Tides",
        "audio_url": f"/api/nodes/jobs/{added['job_id']}/audio",
        "has_job": True,
    }
    job_id = claimed["job_id"]
    assert worker.audio(job_id).content == b"audio bytes"
    assert worker.job(job_id, "progress", {"progress_percent": 140}).json() == {"message": "Progress updated"}
    assert http.get(f"/api/queue/{job_id}").json()["progress_percent"] == 100
    done = worker.job(job_id, "complete", {"transcript_text": TEXT, "whisper_model": "m"})
    assert (done.status_code, done.json()) == (200, {"message": "Job completed successfully"})
    episode = http.get(f"/api/episodes/{added['episode_id']}").json()
    assert (episode["status"], episode["transcript_model"]) == ("completed", "m")
    assert episode["transcript_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    transcript = http.get(f"/api/episodes/{added['episode_id']}/transcript")
    assert transcript.text == TEXT
    assert transcript.headers["content-type"] == "text/markdown; charset=utf-8"
    assert worker.node("claim").json()["has_job"] is False


def test_the_transcript_is_a_file_named_after_its_episode(http: httpx.Client, queue: RunningQueue) -> None:
    added, worker = add(http), Worker(http)
    worker.job(worker.claim(), "complete", {"transcript_text": TEXT})
    path: Path = queue.root / "transcripts" / f"{added['episode_id']}.md"
    assert path.read_text() == TEXT
