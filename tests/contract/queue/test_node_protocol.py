"""cast2md's node protocol against the running server: paths, bodies, status codes and texts of the facts page."""

import hashlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from tests.contract.queue.conftest import TEXT, Worker, add, events

from podfleet_queue.testing import RunningQueue


def test_a_job_goes_round(http: httpx.Client, queue: RunningQueue) -> None:
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
    assert (queue.root / "transcripts" / f"{added['episode_id']}.md").read_text() == TEXT
    no_job = {"job_id": None, "episode_id": None, "episode_title": None, "audio_url": "", "has_job": False}
    assert worker.node("claim").json() == no_job


def test_audio_is_served_whole_and_by_range(http: httpx.Client) -> None:
    audio = bytes(range(256)) * 40
    add(http, audio, title="Sea & Größe/..")
    worker = Worker(http)
    job_id = worker.claim()
    whole = worker.audio(job_id)
    assert (whole.status_code, whole.content) == (200, audio)
    assert whole.headers["content-type"] == "audio/mpeg"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(len(audio))
    assert whole.headers["etag"]
    name = unquote(whole.headers["content-disposition"])
    assert name.startswith("attachment;")
    assert name.rstrip('"').endswith(".opus")
    part = worker.audio(job_id, Range="bytes=100-199")
    assert (part.status_code, part.content) == (206, audio[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(audio)}"
    assert worker.audio(job_id, Range="bytes=10000-").content == audio[10000:]
    assert worker.audio(job_id, Range="bytes=-7").content == audio[-7:]
    assert worker.audio(job_id, Range=f"bytes={len(audio)}-").status_code == 416


def test_the_order_of_checks_on_a_node_path(http: httpx.Client) -> None:
    worker, other = Worker(http), Worker(http, "node-2")
    path = f"/api/nodes/{worker.id}/heartbeat"
    good = {"X-Transcriber-Key": worker.key}
    bad_body = {"claimed_job_ids": "no list"}

    def answer(at: str, headers: dict[str, str], body: object) -> tuple[int, object]:
        got = http.post(at, headers=headers, json=body)
        return got.status_code, got.json()["detail"] if got.status_code != 422 else None

    assert answer(path, {}, bad_body) == (401, "Missing X-Transcriber-Key header")
    assert answer("/api/nodes/none/heartbeat", good, bad_body) == (422, None)
    assert answer("/api/nodes/none/heartbeat", good, {}) == (404, "Node not found")
    assert answer(path, {"X-Transcriber-Key": other.key}, {}) == (401, "Invalid API key for this node")
    assert answer(path, {"X-Transcriber-Key": "nonsense"}, {}) == (401, "Invalid API key for this node")
    assert http.post(path, headers=good).status_code == 422


def test_the_order_of_checks_on_a_job_path(http: httpx.Client) -> None:
    add(http)
    worker, other = Worker(http), Worker(http, "node-2")
    job_id = worker.claim()

    def answer(job: object, headers: dict[str, str], body: object) -> tuple[int, object]:
        got = http.post(f"/api/nodes/jobs/{job}/progress", headers=headers, json=body)
        return got.status_code, got.json()["detail"] if got.status_code != 422 else None

    body = {"progress_percent": 1}
    wrong = {"X-Transcriber-Key": "nonsense"}
    assert answer("x", {}, {}) == (401, "Missing X-Transcriber-Key header")
    assert answer("x", wrong, body) == (422, None)
    assert answer(job_id, wrong, {}) == (422, None)
    assert answer(10**30, worker.headers, body) == (422, None)
    assert answer(10**6, wrong, body) == (401, "Invalid API key")
    assert answer(10**6, other.headers, body) == (404, "Job not found")
    assert answer(job_id, other.headers, body) == (403, "Job not assigned to this node")
    assert worker.job(job_id, "progress", body).status_code == 200


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("progress", {"progress_percent": 1}),
        ("complete", {"transcript_text": TEXT}),
        ("fail", {"error_message": "x"}),
        ("release", None),
    ],
)
def test_another_node_s_job_is_refused_everywhere(http: httpx.Client, call: str, body: object) -> None:
    add(http)
    owner, other = Worker(http), Worker(http, "node-2")
    job_id = owner.claim()
    refused = other.job(job_id, call, body)
    assert (refused.status_code, refused.json()) == (403, {"detail": "Job not assigned to this node"})
    assert other.audio(job_id).status_code == 403
    assert http.get(f"/api/queue/{job_id}").json()["owner_name"] == "node-1"


def test_release_and_fail_take_the_job_from_the_caller(http: httpx.Client) -> None:
    add(http)
    worker = Worker(http)
    job_id = worker.claim()
    assert worker.job(job_id, "release").json() == {"message": "Job released back to queue"}
    assert worker.job(job_id, "release").status_code == 403
    assert http.get(f"/api/queue/{job_id}").json()["attempts"] == 0
    assert worker.claim() == job_id
    failed = worker.job(job_id, "fail", {"error_message": "ValueError: no audio", "retry": False})
    assert failed.json() == {"message": "Job marked as failed"}
    assert worker.job(job_id, "fail", {"error_message": "again"}).status_code == 403
    row = http.get(f"/api/queue/{job_id}").json()
    assert (row["status"], row["error_message"]) == ("failed", "ValueError: no audio")


def test_the_first_text_wins_and_a_late_failure_has_no_effect(http: httpx.Client) -> None:
    added = add(http)
    worker = Worker(http)
    job_id = worker.claim()
    for text in (TEXT, TEXT, TEXT + "**[00:09]** Something else.\n", ""):
        assert worker.job(job_id, "complete", {"transcript_text": text}).status_code == 200
    assert worker.job(job_id, "fail", {"error_message": "late"}).status_code == 200
    assert http.get(f"/api/episodes/{added['episode_id']}/transcript").text == TEXT
    row = http.get(f"/api/queue/{job_id}").json()
    assert (row["status"], row["completed_by"], row["error_message"]) == ("completed", "node-1", None)
    assert [event["kind"] for event in events(http) if event["job_id"] == job_id].count("job.completed") == 1


def test_an_empty_transcript_is_422_and_the_job_stays_with_its_node(http: httpx.Client) -> None:
    add(http)
    worker = Worker(http)
    job_id = worker.claim()
    refused = worker.job(job_id, "complete", {"transcript_text": "*Language: en (100.0% confidence)*\n\n"})
    assert (refused.status_code, refused.json()) == (422, {"detail": "Transcript is empty"})
    assert worker.job(job_id, "complete", {"transcript_text": TEXT}).status_code == 200


def test_request_termination_releases_everything_and_ends_nothing(http: httpx.Client) -> None:
    for _ in range(3):
        add(http)
    worker = Worker(http, "RunPod Afterburner ab12")
    for _ in range(3):
        worker.claim()
    answer = worker.node("request-termination").json()
    assert (answer["status"], answer["terminated"]) == ("ignored", False)
    assert http.get("/api/queue/status").json()["transcribe_queue"]["claimable"] == 3


def test_deregistering_frees_the_jobs_and_refuses_the_key(http: httpx.Client) -> None:
    add(http)
    worker = Worker(http)
    job_id = worker.claim()
    rows = http.get("/api/nodes").json()
    assert [(row["name"], row["status"], row["held_jobs"], row["current_job_id"]) for row in rows["nodes"]] == [
        ("node-1", "busy", 1, job_id)
    ]
    assert http.delete(f"/api/nodes/{worker.id}").json() == {"message": "Node deleted"}
    assert http.delete(f"/api/nodes/{worker.id}").status_code == 404
    assert worker.node("heartbeat", {}).status_code == 404
    assert worker.audio(job_id).status_code == 401
    assert Worker(http).claim() == job_id


def test_an_offline_name_registers_again_under_a_new_key(http: httpx.Client) -> None:
    first, again = Worker(http), Worker(http)
    assert again.id == first.id
    assert again.message == "Node 'node-1' re-registered (reused existing entry)"
    assert first.node("heartbeat", {}).status_code == 401
    again.node("heartbeat", {})
    assert Worker(http).id != first.id


def test_what_the_reconciler_reads(http: httpx.Client) -> None:
    for number in range(25):
        add(http, title=f"episode {number}")
    worker = Worker(http)
    running_id = worker.claim()
    status = http.get("/api/queue/status").json()
    counts = status["transcribe_queue"]
    assert (counts["queued"], counts["claimable"], counts["running"]) == (24, 24, 1)
    assert [job["job_id"] for job in counts["running_jobs"]] == [running_id]
    assert len(counts["queued_jobs"]) == 20
    assert set(counts["queued_jobs"][0]) == {"job_id", "episode_id", "episode_title", "priority"}
    assert status["download_queue"]["queued"] == status["embed_queue"]["queued"] == 0
    due = http.get("/api/queue", params={"job_type": "transcribe", "limit": 100_000}).json()["jobs"]
    assert len(due) == 24
    assert running_id not in {job["id"] for job in due}
    everything = http.get("/api/queue/all", params={"limit": 1, "status": "running"}).json()
    assert (everything["total"], everything["stuck_count"]) == (1, 0)
    assert everything["jobs"][0]["owner_node_id"] == worker.id
    assert http.get("/api/queue", params={"job_type": "embed"}).json() == {"jobs": []}


def test_jobs_can_be_reset_retried_deleted_and_queued_again_by_hand(http: httpx.Client) -> None:
    added = add(http)
    worker = Worker(http)
    job_id = worker.claim()
    assert http.post(f"/api/queue/{job_id}/retry").status_code == 400
    assert http.delete(f"/api/queue/{job_id}").status_code == 400
    assert http.post(f"/api/queue/{job_id}/reset").status_code == 200
    assert http.post(f"/api/queue/{job_id}/reset").status_code == 400
    assert worker.job(job_id, "complete", {"transcript_text": TEXT}).status_code == 403
    again = f"/api/queue/episodes/{added['episode_id']}/transcribe"
    assert http.post(again, json={"priority": 1}).status_code == 409
    assert http.delete(f"/api/queue/{job_id}").status_code == 200
    assert http.post(again, json={"priority": 1}).json()["job_id"] > job_id
    assert http.post("/api/queue/episodes/99999/transcribe").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/queue/episodes/1/transcribe", {"priority": 2**70}),
        ("GET", f"/api/queue/{-(2**70)}", None),
        ("GET", f"/api/queue/{2**70}", None),
        ("GET", f"/api/episodes/{-(2**70)}", None),
        ("GET", "/api/nodes/stale?offline_hours=inf", None),
    ],
)
def test_numbers_that_no_column_can_hold_are_refused(
    http: httpx.Client, method: str, path: str, body: dict[str, int] | None
) -> None:
    assert http.request(method, path, json=body).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/api/queue/999999", "/api/episodes/999999", "/api/episodes/999999/transcript", "/api/nothing"],
)
def test_unknown_things_are_404(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_what_is_no_utf8_is_refused_and_not_a_crash(http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    refused = http.post("/api/nodes/register", content=b'{"name": "\\ud800", "url": "x"}', headers=headers)
    assert refused.status_code == 422
    assert http.post("/api/nodes/register", content=b"{", headers=headers).status_code == 422


def test_an_empty_upload_is_refused(http: httpx.Client, queue: RunningQueue) -> None:
    refused = http.post("/api/episodes", params={"filename": "a.opus"}, content=b"")
    assert (refused.status_code, refused.json()) == (422, {"detail": "Audio is empty"})
    assert list((queue.root / "uploads").iterdir()) == []


def test_real_audio_gets_its_length(http: httpx.Client) -> None:
    pytest.importorskip("av")
    audio = Path(__file__).parents[3] / "tools" / "episodes" / "audio" / "01-tides-rms.opus"
    added = add(http, audio.read_bytes())
    assert http.get(f"/api/episodes/{added['episode_id']}").json()["duration_seconds"] == pytest.approx(57.2, abs=1)
    assert http.get("/api/queue/status").json()["transcribe_queue"]["claimable_audio_seconds"] > 40


def test_health_and_nothing_stale(http: httpx.Client) -> None:
    health = http.get("/api/health")
    assert (health.status_code, health.json()["status"], health.json()["database"]) == (200, "healthy", "ok")
    Worker(http, "never-beat")
    assert http.get("/api/nodes/stale").json()["stale_count"] == 1
    assert http.request("DELETE", "/api/nodes/stale").json()["deleted_count"] == 1


def test_the_command_line_adds_and_shows(http: httpx.Client, queue: RunningQueue, tmp_path: Path) -> None:
    audio = tmp_path / "bread.opus"
    audio.write_bytes(b"bread")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command_line = [sys.executable, "-m", "podfleet_queue", *arguments]
        return subprocess.run(command_line, check=False, capture_output=True, text=True)

    added = command("add", str(audio), "--url", queue.url)
    assert added.returncode == 0, added.stderr
    assert '"job_id"' in added.stdout
    assert "queued 1" in command("status", "--url", queue.url).stdout
    assert '"claimable": 1' in command("status", "--url", queue.url, "--json").stdout
    silent = command("status", "--url", "http://127.0.0.1:9")
    assert (silent.returncode, silent.stderr.count("\n")) == (3, 1)
