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
    with running(tmp_path_factory.mktemp("cloud"), boot_s=0.0, ssh_s=0.0, pod_command=SLEEPER, page_size=2) as cloud:
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


def test_it_creates_lists_and_gets_pods(session: dict[str, Any]) -> None:
    pods = session["pods"]
    made, found = pods["made"], pods["found"]
    assert (made["name"], made["image"], made["env"]["HELLO"]) == ("sdk-pod", "example/image:1", "world")
    assert pods["listed"] == [made["id"], pods["cpu"]["id"]]
    assert found["id"] == made["id"]
    assert found["gpu"]["id"] == "NVIDIA RTX A4000"
    assert (found["cost"], found["cudaVersion"]) == (0.25, "12.8")
    assert found["ports"] == ["22/tcp", "8888/http"]
    assert pods["cpu"]["cpu"] == {"id": "cpu3c", "vcpuCount": 2, "memory": 4}


def test_it_follows_the_log(session: dict[str, Any]) -> None:
    line = session["pods"]["log"]
    assert (line["source"], line["line"]) == ("container", "started")


def test_it_stops_resumes_and_ends_them(session: dict[str, Any]) -> None:
    pods = session["pods"]
    assert pods["stopped"]["id"] == pods["resumed"]["id"] == pods["made"]["id"]
    assert pods["ended"] == [None, None]
    assert pods["after"] == [[], None]
    assert session["left"] == []
    kinds = [event["kind"] for event in session["events"] if event.get("pod_id") == pods["made"]["id"]]
    assert kinds[0] == "pod.created"
    assert kinds.count("pod.ended") == 1
    assert pods["twice"][0] == 404


def test_its_paginator_reads_every_volume(session: dict[str, Any]) -> None:
    account = session["account"]
    assert [volume["name"] for volume in account["listed"]] == [f"v{n}" for n in range(5)]
    assert account["listed"] == account["volumes"]


def test_it_keeps_renews_and_forgets_registry_logins(session: dict[str, Any]) -> None:
    account = session["account"]
    assert account["listed logins"] == account["logins"]
    assert account["renewed"] == account["logins"][1]
    status, text, _ = account["login in use"]
    assert (status, account["pod"]["id"] in text) == (400, True)
    assert (account["deleted"], account["left"]) == ([True, True], [])


def test_it_makes_a_template_and_a_pod_from_it_on_a_volume(session: dict[str, Any]) -> None:
    account = session["account"]
    template, pod = account["template"], account["pod"]
    assert (pod["image"], pod["ports"], pod["disk"]) == (template["image"], template["ports"], 11)
    assert pod["registry"] == account["logins"][0]["id"]
    assert pod["mounts"]["network"][0]["volumeId"] == account["volumes"][0]["id"]


def test_it_knows_the_user_and_replaces_the_keys(session: dict[str, Any]) -> None:
    user = session["account"]["user"]
    assert user == session["account"]["same user"]
    assert user["pubKey"].startswith("ssh-ed25519 ")
    assert [volume["name"] for volume in user["networkVolumes"]] == [f"v{n}" for n in range(5)]


def test_it_reads_the_catalogue(session: dict[str, Any]) -> None:
    catalogue = session["catalogue"]
    assert "NVIDIA RTX A4000" in catalogue["gpus"]
    assert catalogue["gpu"]["availability"] == catalogue["stock"] == "HIGH"
    assert catalogue["cpu stock"] == "HIGH"
    assert catalogue["with volumes"] == ["EU-RO-1", "EU-SE-1", "US-KS-2"]


def test_it_understands_what_it_is_refused(session: dict[str, Any]) -> None:
    refused = session["refused"]
    assert "API key" in refused["wrong key"]
    assert "API key" in refused["wrong key in GraphQL"]
    status, text, _ = refused["no capacity"]
    assert (status, "no longer any instances" in text) == (400, True)
    assert refused["no such template"][:2] == [404, "resource not found"]
    status, _, errors = refused["bad port"]
    assert (status, errors[0].startswith("ports.0:")) == (422, True)
    assert refused["no such gpu"].startswith("No GPU found")
    assert refused["no such pod"][0] == refused["no serverless"][0] == 404
