"""A running queue server, and a node as the wire sees it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from podfleet_queue.testing import RunningQueue, running

TEXT = "*Language: en (100.0% confidence)*\n\n**[00:00]** The tide comes in twice a day.\n"


class Worker:
    """Speaks the node protocol and nothing else."""

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


def events(http: httpx.Client, since: int = 0) -> list[dict[str, Any]]:
    return list(http.get("/api/queue/events", params={"since": since, "limit": 100_000}).json()["events"])


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQueue]:
    with running(tmp_path_factory.mktemp("queue"), retry_s=0) as server:
        yield server


@pytest.fixture
def http(queue: RunningQueue) -> Iterator[httpx.Client]:
    """A client on a queue whose earlier nodes and jobs are out of the way."""
    with httpx.Client(base_url=queue.url, trust_env=False, timeout=30) as client:
        for node in client.get("/api/nodes").json()["nodes"]:
            client.delete(f"/api/nodes/{node['id']}")
        for job in client.get("/api/queue/all", params={"status": "queued"}).json()["jobs"]:
            client.delete(f"/api/queue/{job['id']}")
        yield client
