"""Names, environments and steps of pods, from the config."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet import acl, bootstrap, podspec
from podfleet.config import PodfleetConfig, parse

BASE = {
    "uid": "local-0a1b2c3d",
    "sshPublicKey": "ssh-ed25519 AAAA podfleet-local",
    "sshPrivateKey": "CANARY-PRIVATE",
    "image": "example/node:1",
    "gpuTypes": ["NVIDIA RTX A4000"],
    "queueUrl": "http://127.0.0.1:8792",
}
PREFIX = podspec.name_prefix("podfleet", "local")


def config(**changes: object) -> PodfleetConfig:
    return parse({**BASE, **changes}, stack="local")


def name_for(settings: PodfleetConfig, slot: str = "slot-01") -> str:
    return podspec.remote_name(PREFIX, slot, settings.uid, podspec.pod_spec(settings))


@pytest.mark.parametrize(
    "change",
    [
        {"image": "example/node:2"},
        {"gpuTypes": ["NVIDIA L4"]},
        {"cloud": "COMMUNITY"},
        {"diskGb": 40},
        {"minCudaVersion": "13.0"},
        {"dataCenterIds": ["EU-RO-1"]},
        {"bootstrap": "none"},
        {"uid": "local-ffffffff"},
    ],
)
def test_what_makes_another_pod_makes_another_name(change: dict[str, object]) -> None:
    assert name_for(config(**change)) != name_for(config())


@pytest.mark.parametrize(
    "change",
    [
        {"pods": 2},
        {"maxPods": 9},
        {"maxRuntimeMinutes": 5},
        {"queueUrl": "http://10.0.0.1"},
        {"sshPrivateKey": "other"},
        {"sshPublicKey": "ssh-ed25519 BBBB x"},
        {"engine": "scripted"},
    ],
)
def test_limits_keys_and_work_settings_keep_the_name(change: dict[str, object]) -> None:
    assert name_for(config(**change)) == name_for(config())


@given(st.integers(1, 999).map(lambda number: f"slot-{number:02d}"))
def test_the_slot_can_be_read_from_the_name(slot: str) -> None:
    assert podspec.slot_of(name_for(config(), slot), PREFIX) == slot


@pytest.mark.parametrize("mode", ["image", "none"])
def test_the_environment_holds_references_and_no_secret(mode: str) -> None:
    settings = config(bootstrap=mode)
    env = podspec.pod_environment(settings, slot="slot-01", name=name_for(settings), tailnet_secret="key-1")
    assert env[podspec.TAILNET_KEY_VARIABLE] == "{{ RUNPOD_SECRET_key-1 }}"
    assert "CANARY" not in json.dumps(env)
    assert env["PODFLEET_UID"] == settings.uid
    assert ("PODFLEET_SERVER_URL" in env) is (mode == "none")
    assert ("PUBLIC_KEY" in env) is (mode == "image")
    assert len(env) <= 50


@pytest.mark.parametrize("mode", ["image", "none"])
def test_a_pod_is_told_its_lifetime_in_every_mode_and_three_ways_to_end_itself(mode: str) -> None:
    """The command finds the pod's key in the environment: in its arguments anybody could read it."""
    for minutes, told in ((30, "1800.0"), (0, "0.0")):
        settings = config(bootstrap=mode, keepAlive=True, maxRuntimeMinutes=minutes)
        env = podspec.pod_environment(settings, slot="slot-01", name=name_for(settings))
        assert env["PODFLEET_MAX_RUNTIME_S"] == told
    ways = json.loads(env["PODFLEET_SELF_STOP"])
    assert [way.get("url", "").removeprefix(settings.runpod_url) for way in ways] == [
        "/v2/pods/${RUNPOD_POD_ID}",
        "/graphql",
        "",
    ]
    assert ways[2] == {"argv": ["runpodctl", "remove", "pod", "${RUNPOD_POD_ID}"]}


def test_the_steps_say_what_to_run_and_keep_settings_on_stdin() -> None:
    found = bootstrap.steps(config(), name="n")
    assert [step.name for step in found] == ["verify", "configure", "start"]
    assert json.loads(found[1].stdin)["server_url"] == "http://127.0.0.1:8792"
    joined = bootstrap.steps(config(join=True, tailnet="-"), name="n")
    assert [step.name for step in joined] == ["verify", "join", "configure", "start"]
    assert json.loads(joined[2].stdin)["http_proxy"]
    assert bootstrap.steps(config(bootstrap="none"), name="n") == ()


def test_the_script_is_valid_shell() -> None:
    text = bootstrap.script(config(join=True, tailnet="-"), name="a name")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    subprocess.run(["sh", "-n"], input=bootstrap.JOIN, text=True, check=True)


def test_pods_may_reach_the_server_and_nothing_else() -> None:
    rules = acl.policy(server_port=8000)["acls"]
    assert [rule["dst"] for rule in rules if acl.POD_TAG in rule["src"]] == [["tag:server:8000"]]
