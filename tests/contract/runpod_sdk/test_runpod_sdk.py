"""RunPod's unmodified SDK on localcloud: the emulator speaks what clients that are not ours speak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localcloud.testing import running

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
SLEEPER = ["/bin/sh", "-c", "echo started; exec sleep 600"]
VERSION = "2.0.0rc2"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the SDK saw, and what the cloud says of it afterwards."""
    python = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / "conformance.py")], capture_output=True, text=True, check=False
    )
    assert python.returncode == 0, python.stderr
    foreign = ("RUNPOD_", "PODFLEET_", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    with running(tmp_path_factory.mktemp("cloud"), boot_s=0.0, ssh_s=0.0, pod_command=SLEEPER) as cloud:
        done = subprocess.run(
            [python.stdout.strip(), str(HERE / "sdk_session.py")],
            env={**env, **cloud.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**seen, "events": cloud.events(), "left": cloud.live_pods()}


def test_it_is_the_sdk_of_the_lock(session: dict[str, Any]) -> None:
    assert session["version"] == VERSION


def test_it_creates_lists_and_gets_a_pod(session: dict[str, Any]) -> None:
    made, found = session["made"], session["found"]
    assert (made["name"], made["image"], made["env"]["HELLO"]) == ("sdk-pod", "example/image:1", "world")
    assert session["listed"] == [made["id"]]
    assert found["id"] == made["id"]
    assert found["gpu"]["id"] == "NVIDIA RTX A4000"
    assert found["cost"] == 0.25
    assert found["ports"] == ["22/tcp", "8888/http"]
    assert "NVIDIA RTX A4000" in session["gpus"]


def test_it_stops_resumes_and_ends_it(session: dict[str, Any]) -> None:
    assert session["stopped"]["id"] == session["resumed"]["id"] == session["made"]["id"]
    assert session["ended"] is None
    assert session["after"] == [[], None]
    assert session["left"] == []
    kinds = [event["kind"] for event in session["events"] if event.get("pod_id") == session["made"]["id"]]
    assert kinds[0] == "pod.created"
    assert kinds.count("pod.ended") == 1


def test_it_understands_what_it_is_refused(session: dict[str, Any]) -> None:
    refused = session["refused"]
    assert "API key" in refused["wrong key"]
    status, text = refused["no capacity"]
    assert status == 400
    assert text
