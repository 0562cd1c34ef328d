"""A real node against a real queue server: no job is lost, none is failed by mistake, nothing stays behind."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from node_pods import (
    NodePod,
    add,
    add_noise,
    cloud,
    hurdle,
    jobs,
    nodes,
    pod,
    statuses,
    transcript,
    until,
)

from podfleet_queue.testing import RunningQueue

CANARY = "canary-3f9a"


def _spooled(node: NodePod) -> list[Path]:
    return list((node.root / "var/lib/podfleet/spool").glob("*.json"))


def test_it_drains_the_queue_then_ends_its_pod(queue: RunningQueue, tmp_path: Path) -> None:
    for seed in range(1, 6):
        add_noise(queue.url, seed=seed)
    host_key = tmp_path / "pod" / "etc/ssh/ssh_host_ed25519_key.pub"
    host_key.parent.mkdir(parents=True)
    host_key.write_text("ssh-ed25519 AAAAkey builder@host\n")
    with cloud() as provider:
        provider.status["/refused/p1"] = 403
        stop = [
            {
                "url": provider.url + "/refused/${RUNPOD_POD_ID}",
                "headers": {"Authorization": "Bearer ${RUNPOD_API_KEY}"},
            },
            {"method": "POST", "url": provider.url + "/second", "json_body": {"query": "end ${RUNPOD_POD_ID}"}},
            {"url": provider.url + "/third"},
        ]
        variables = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": CANARY}
        limits = {"stop_on_empty_queue": True, "empty_queue_wait_s": 0.5}
        with pod(tmp_path / "pod", queue.url, self_stop=stop, **limits, **variables) as node:
            assert node.wait_for("podfleet-node host-key ") == "podfleet-node host-key ssh-ed25519 AAAAkey"
            ready = node.wait_for("podfleet-node ready ")
            node.wait_for("podfleet-node phase stopping empty queue")
            until(lambda: len(provider.requests) >= 2, what="two requests")
            time.sleep(0.5)
            assert provider.paths()[:2] == ["/refused/p1", "/second"], "in order, up to the first that is accepted"
            assert "/third" not in provider.paths()
            assert provider.requests[0][2]["Authorization"] == f"Bearer {CANARY}"
            assert json.loads(provider.requests[1][3]) == {"query": "end p1"}
            assert node.process.poll() is None, "it never just exits"
            assert node.terminate() < 5
            assert node.process.returncode == 0
        assert " metrics=127.0.0.1:" in ready
        assert ready.endswith("engine=scripted")
        assert CANARY not in "\n".join(node.lines + node.log)
        assert provider.url not in "\n".join(node.log)
    assert statuses(queue.url) == ["completed"] * 5
    texts = [transcript(queue.url, row["episode_id"]) for row in jobs(queue.url).values()]
    assert len(set(texts)) == 5, "each text comes from its own audio"
    assert all(text.startswith("*Language: en (100.0% confidence)*\n\n**[00:00]** ") for text in texts)
    assert nodes(queue.url) == []


def test_sigterm_in_the_middle_of_a_job_releases_everything_within_five_seconds(
    queue: RunningQueue, tmp_path: Path
) -> None:
    for seed in range(1, 5):
        add_noise(queue.url, seed=seed, audio_s=30)
    with pod(tmp_path / "pod", queue.url, model="speed=1", prefetch_audio_s=600) as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        until(lambda: statuses(queue.url).count("running") >= 2, what="prefetched jobs")
        secrets_seen = [Path(f"/proc/{pid}/environ").read_text() for pid in node.group() if pid != node.process.pid]
        assert len(secrets_seen) >= 2
        assert all("RUNPOD" not in text for text in secrets_seen)
        assert node.terminate() < 5
        assert node.process.returncode == 0
        assert until(lambda: not node.group(), what="no process left", timeout_s=3)
    assert statuses(queue.url) == ["queued"] * 4
    assert all(row["error_message"] is None for row in jobs(queue.url).values())
    assert nodes(queue.url) == []


def test_sigterm_while_a_decoder_works_fails_no_job(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=900)
    with pod(tmp_path / "pod", queue.url) as node:
        until(lambda: statuses(queue.url) == ["running"], what="a claimed job")
        until(lambda: list((node.root / "var/lib/podfleet/work").glob("*/audio.s16le")), what="a decoder at work")
        assert node.terminate() < 5
    row = jobs(queue.url)[1]
    assert (row["status"], row["error_message"]) in {("queued", None), ("completed", None)}


def test_a_killed_worker_sends_its_finished_transcript_in_its_next_life(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1)
    with hurdle(queue.url) as way:
        way.faults["/complete"] = 503
        with pod(tmp_path / "pod", way.url) as node:
            until(lambda: _spooled(node), what="a spooled transcript")
            text = json.loads(_spooled(node)[0].read_text())["text"]
            before = set(node.group()) - {node.process.pid}
            os.kill(node.status()["worker_pid"], signal.SIGKILL)
            until(lambda: not before & set(node.group()), what="the engine ends with its worker")
            way.faults.clear()
            until(lambda: statuses(queue.url) == ["completed"], what="the transcript is accepted")
            until(lambda: not _spooled(node), what="an empty spool")
            assert transcript(queue.url, 1) == text
            assert node.status()["crashes_in_a_row"] == 0, "a worker that gets work done is no crash in a row"
        assert way.count("POST /api/nodes/register") == 1
        assert way.count("/fail") == 0
        assert jobs(queue.url)[1]["attempts"] == 1, "the job was done once"


def test_a_killed_worker_gives_back_what_was_not_finished(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=4)
    with pod(tmp_path / "pod", queue.url, model="speed=2") as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        os.kill(node.status()["worker_pid"], signal.SIGKILL)
        until(lambda: statuses(queue.url) == ["completed"], what="the job is done in the next life")
    assert jobs(queue.url)[1]["error_message"] is None


def test_when_pid_1_is_killed_the_worker_releases_and_goes(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=60)
    with pod(tmp_path / "pod", queue.url, model="speed=1") as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        node.process.kill()
        until(lambda: not node.group(), what="no process left", timeout_s=10)
    assert statuses(queue.url) == ["queued"]


@pytest.mark.parametrize("crash", [False, True])
def test_an_engine_that_fails_or_dies_names_its_error(queue: RunningQueue, tmp_path: Path, crash: bool) -> None:
    add_noise(queue.url, seed=1)
    with pod(tmp_path / "pod", queue.url, model="crash=1" if crash else "fail=CUDA error 35"):
        until(lambda: jobs(queue.url)[1]["error_message"], what="an error")
    text = jobs(queue.url)[1]["error_message"]
    assert text == (
        "EngineFailed: the engine's process died (exit code -9)"
        if crash
        else "EngineFailed: RuntimeError: CUDA error 35"
    )
    assert statuses(queue.url) == ["queued"], "another node may try"


def test_a_broken_file_fails_for_good_and_the_next_one_is_done(queue: RunningQueue, tmp_path: Path) -> None:
    add(queue.url, b"this is no audio at all" * 50, name="broken.mp3")
    add_noise(queue.url, seed=2)
    with pod(tmp_path / "pod", queue.url):
        until(lambda: statuses(queue.url) == ["failed", "completed"], what="both decided")
    assert jobs(queue.url)[1]["error_message"].startswith("AudioBroken: ")
    assert str(tmp_path) not in jobs(queue.url)[1]["error_message"]


def test_audio_that_cannot_be_fetched_is_failed_for_another_try(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1)
    with hurdle(queue.url) as way:
        way.faults["/audio"] = 500
        with pod(tmp_path / "pod", way.url):
            until(lambda: jobs(queue.url)[1]["error_message"], what="an error")
        assert way.count("/release") == 0
    row = jobs(queue.url)[1]
    assert row["error_message"].startswith("DownloadFailed: ")
    assert row["status"] == "queued"
    assert row["next_retry_at"]


def test_a_node_that_the_server_forgot_registers_again(queue: RunningQueue, tmp_path: Path) -> None:
    with pod(tmp_path / "pod", queue.url) as node:
        node.wait_for("podfleet-node ready ")
        (row,) = nodes(queue.url)
        httpx.delete(f"{queue.url}/api/nodes/{row['id']}").raise_for_status()
        add_noise(queue.url, seed=1)
        until(lambda: statuses(queue.url) == ["completed"], what="work goes on")
        assert len(nodes(queue.url)) == 1
