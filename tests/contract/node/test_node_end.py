"""How a real node ends: by each rule, by its lifetime, by a drain; and that a refused end is asked for again."""

import json
import os
import signal
import time
from pathlib import Path
from select import select
from typing import Any

import pytest
from node_pods import add_noise, cloud, jobs, nodes, pod, statuses, until

from podfleet_queue.testing import RunningQueue

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"stop_on_empty_queue": True, "empty_queue_wait_s": 0.4}, "stopping empty queue"),
        ({"idle_timeout_s": 1}, "stopping idle"),
        ({"max_runtime_s": 4}, "stopping lifetime"),
        ({"expires_at_s": 1.0}, "stopping lifetime"),
        ({"wait_for_start": True, "bootstrap_deadline_s": 0.5}, "stopping bootstrap deadline"),
        ({"server_url": NOWHERE, "server_unreachable_s": 1}, "stopping server unreachable"),
        ({"model": "smoke=CUDA error 35"}, "failed smoke test: RuntimeError: CUDA error 35"),
        ({"engine": "parakeet"}, "failed smoke test: SettingsError: engine: unknown engine 'parakeet'"),
        ({"prefetch_jobs": "many"}, "failed settings: prefetch_jobs: "),
    ],
)
def test_every_reason_ends_the_pod_through_the_self_stop(
    queue: RunningQueue, tmp_path: Path, settings: dict[str, Any], line: str
) -> None:
    with (
        cloud() as provider,
        pod(tmp_path / "pod", queue.url, self_stop=[{"url": provider.url + "/end"}], **settings) as node,
    ):
        node.wait_for(f"podfleet-node phase {line}")
        until(lambda: provider.paths() == ["/end"], what="the request that ends the pod")
        assert node.process.poll() is None
        assert node.group() == [node.process.pid], "nothing but PID 1 is left"
        if "failed" in line:
            assert not node.said("podfleet-node ready ")
            assert not node.logged("node.registered")
    assert nodes(queue.url) == []


@pytest.mark.parametrize("log", ["that nobody reads", "that is gone"])
def test_a_log_that_takes_nothing_holds_up_no_end(queue: RunningQueue, tmp_path: Path, log: str) -> None:
    reader, writer = os.pipe()
    if log == "that is gone":
        os.close(reader)
    else:
        while select([], [writer], [], 0)[1]:
            os.write(writer, b"x" * 4096)
    with (
        cloud() as provider,
        pod(
            tmp_path / "pod",
            queue.url,
            output_fd=writer,
            self_stop=[{"url": provider.url + "/end"}],
            stop_on_empty_queue=True,
            empty_queue_wait_s=0.4,
            max_runtime_s=30,
        ) as node,
    ):
        until(lambda: nodes(queue.url), what="a node that works all the same")
        until(provider.paths, what="the request that ends the pod")
        assert node.process.poll() is None
    os.close(writer)


def test_failures_in_a_row_end_the_pod_with_its_jobs_released(queue: RunningQueue, tmp_path: Path) -> None:
    for seed in range(1, 7):
        add_noise(queue.url, seed=seed)
    with (
        cloud() as provider,
        pod(
            tmp_path / "pod",
            queue.url,
            self_stop=[{"url": provider.url + "/end"}],
            model="fail=boom",
            max_consecutive_failures=3,
        ) as node,
    ):
        node.wait_for("podfleet-node phase stopping failures in a row")
        until(provider.paths, what="the request that ends the pod")
    rows = jobs(queue.url).values()
    assert sum(row["error_message"] == "EngineFailed: RuntimeError: boom" for row in rows) == 3
    assert statuses(queue.url) == ["queued"] * 6
    assert all(row["owner_node_id"] is None for row in rows)


def test_the_lifetime_ends_a_pod_in_the_middle_of_a_job(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=60)
    with (
        cloud() as provider,
        pod(
            tmp_path / "pod",
            queue.url,
            self_stop=[{"url": provider.url + "/end"}],
            model="speed=1",
            max_runtime_s=6,
            keep_alive=True,
        ) as node,
    ):
        until(lambda: statuses(queue.url) == ["running"], what="a running job")
        node.wait_for("podfleet-node phase stopping lifetime")
        until(provider.paths, what="the request that ends the pod")
        assert statuses(queue.url) == ["queued"], "released before the end is asked for"


def test_a_refused_end_is_asked_for_again_and_the_node_never_exits(tmp_path: Path) -> None:
    with cloud() as provider:
        provider.status |= {"/a": 401, "/b": 410}
        stop = [{"url": provider.url + path} for path in ("/a", "/b")]
        with pod(tmp_path / "pod", NOWHERE, self_stop=stop, expires_at_s=1.0) as node:
            until(lambda: len(provider.requests) >= 6, what="three rounds", timeout_s=30)
            assert provider.paths()[:6] == ["/a", "/b"] * 3
            assert node.process.poll() is None
            assert node.terminate() < 5
            assert node.process.returncode == 0


def test_every_way_is_tried_and_every_step_is_in_the_log(tmp_path: Path) -> None:
    """PID 1 collects all children, the command's too: its status is told all the same."""
    end = tmp_path / "endpod"
    end.write_text(f'#!/bin/sh\nprintf "%s|" "$@" "$POD_KEY" >>{tmp_path}/said; exit 7\n')
    end.chmod(0o755)
    with cloud() as provider:
        provider.status |= {"/a": 403, "/b": 410}
        stop: list[dict[str, Any]] = [{"url": provider.url + path} for path in ("/a", "/b")]
        stop += [{"argv": ["endpod", "remove", "${POD}"]}, {"argv": ["no-such-cli", "${POD}"]}]
        variables = {"POD": "p1", "POD_KEY": "canary", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        with pod(tmp_path / "pod", NOWHERE, self_stop=stop, expires_at_s=1.0, keep_alive=True, **variables) as node:
            until(lambda: len(node.logged("selfstop.alive")) >= 3, what="three rounds", timeout_s=30)
            assert node.process.poll() is None
            answered = [
                (each["request"], each.get("status"), each.get("exit_status"))
                for each in node.logged("selfstop.answered")
            ]
            assert answered[:3] == [(1, 403, None), (2, 410, None), (3, None, 7)]
            assert node.logged("selfstop.failed")[0]["error"] == "no such command in this image"
            waits = [each["next_round_in_s"] for each in node.logged("selfstop.alive")]
            assert waits[:3] == [2.0, 4.0, 8.0]
            assert (tmp_path / "said").read_text().startswith("remove|p1|canary|")
            assert not any("canary" in line for line in (*node.lines, *node.log))


def test_without_a_self_stop_it_exits(queue: RunningQueue, tmp_path: Path) -> None:
    with pod(tmp_path / "pod", queue.url, stop_on_empty_queue=True, empty_queue_wait_s=0) as node:
        assert node.process.wait(60) == 0


def test_a_worker_that_always_crashes_ends_the_pod_and_gives_its_jobs_back(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=60)
    with (
        cloud() as provider,
        pod(
            tmp_path / "pod",
            queue.url,
            self_stop=[{"url": provider.url + "/end"}],
            model="speed=1",
            max_consecutive_failures=2,
        ) as node,
    ):
        for life in (1, 2):
            until(
                lambda life=life: len(node.logged("worker.started")) == life and statuses(queue.url) == ["running"],  # type: ignore[misc]
                what=f"life {life}",
            )
            os.kill(node.status()["worker_pid"], signal.SIGKILL)
            until(lambda life=life: len(node.logged("worker.crashed")) == life, what="a crash")  # type: ignore[misc]
        node.wait_for("podfleet-node phase failed worker crashed")
        until(provider.paths, what="the request that ends the pod")
        assert statuses(queue.url) == ["queued"], "PID 1 gave it back itself"
        assert nodes(queue.url) == []


def test_a_drain_finishes_the_current_job_and_gives_the_rest_back(queue: RunningQueue, tmp_path: Path) -> None:
    for seed in range(1, 5):
        add_noise(queue.url, seed=seed, audio_s=6)
    with pod(tmp_path / "pod", queue.url, model="speed=2", prefetch_audio_s=600) as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        until(lambda: statuses(queue.url).count("running") >= 3, what="prefetched jobs")
        done = node.command("drain", "--deadline-s", "60")
        assert done.returncode == 0, done
        answer = json.loads(done.stdout)
        assert answer["drained"] is True
        assert answer["finished"] == 1
        assert answer["released"] >= 2
        time.sleep(1.5)
        assert sorted(statuses(queue.url)) == ["completed", "queued", "queued", "queued"], "it claims nothing more"
        assert nodes(queue.url)[0]["held_jobs"] == 0
        assert node.said("podfleet-node phase draining")
        again = node.command("drain", "--deadline-s", "5")
        assert (again.returncode, json.loads(again.stdout)["drained"]) == (0, True)


def test_a_drain_whose_deadline_passes_gives_everything_back(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=120)
    with pod(tmp_path / "pod", queue.url, model="speed=1") as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        done = node.command("drain", "--deadline-s", "1")
        assert done.returncode == 3
        assert json.loads(done.stdout) == {"drained": False, "released": 1, "finished": 0}
        assert statuses(queue.url) == ["queued"]


def test_control_commands_without_a_node_say_so(tmp_path: Path) -> None:
    with pod(tmp_path / "pod", NOWHERE, expires_at_s=1.0) as node:
        assert node.process.wait(30) == 0
        for command in (("drain", "--deadline-s", "1"), ("status",)):
            done = node.command(*command)
            assert (done.returncode, done.stderr) == (4, "podfleet-node: no node is running here\n")


def test_bootstrap_steps_configure_and_start(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1)
    with pod(tmp_path / "pod", NOWHERE, engine="none", wait_for_start=True) as node:
        check = node.command("check")
        assert check.returncode == 0
        assert "engines pocketsphinx scripted" in check.stdout.splitlines()
        wrong = node.command("configure", stdin=json.dumps({"server": "canary", "poll_s": -1}))
        assert wrong.returncode == 2
        assert "server: " in wrong.stderr
        assert "poll_s: " in wrong.stderr
        assert "canary" not in wrong.stderr
        given = {"server_url": queue.url, "engine": "scripted"}
        assert node.command("configure", stdin=json.dumps(given)).returncode == 0
        assert (node.root / "etc/podfleet/node.json").stat().st_mode & 0o077 == 0
        assert not node.said("podfleet-node phase smoke")
        assert json.loads(node.command("start").stdout) == {"started": True}
        assert json.loads(node.command("start").stdout) == {"started": True}
        until(lambda: statuses(queue.url) == ["completed"], what="the job is done")
        assert len(node.logged("worker.started")) == 1


def test_new_settings_reach_a_running_node(queue: RunningQueue, tmp_path: Path) -> None:
    with pod(tmp_path / "pod", queue.url) as node:
        node.wait_for("podfleet-node ready ")
        done = node.command("configure", stdin=json.dumps({"heartbeat_s": 2}))
        assert json.loads(done.stdout) == {"configured": True, "reloaded": True}
        until(lambda: node.logged("settings.reloaded"), what="live settings")
        assert len(node.logged("worker.started")) == 1
        node.command("configure", stdin=json.dumps({"model": "speed=500"}))
        until(lambda: len(node.logged("worker.started")) == 2, what="a new worker for a new model")
        add_noise(queue.url, seed=1)
        until(lambda: statuses(queue.url) == ["completed"], what="it works")
        assert node.status()["crashes_in_a_row"] == 0


def test_sigterm_ends_a_pod_within_five_seconds_even_when_the_server_hangs(queue: RunningQueue, tmp_path: Path) -> None:
    add_noise(queue.url, seed=1, audio_s=120)
    with pod(tmp_path / "pod", queue.url, model="speed=1") as node:
        until(lambda: node.status().get("worker", {}).get("running"), what="a running job")
        queue.process.send_signal(signal.SIGSTOP)
        try:
            assert node.terminate() < 5
        finally:
            queue.process.send_signal(signal.SIGCONT)
        assert until(lambda: not node.group(), what="no process left", timeout_s=3)
