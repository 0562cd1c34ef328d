"""The stack's config is checked as a whole, and every problem names its key."""

from __future__ import annotations

import pytest

from podfleet.config import parse, slots_for
from podfleet.errors import ConfigError

GOOD = {
    "podfleet:uid": "local-0a1b2c3d",
    "podfleet:sshPublicKey": "ssh-ed25519 AAAA podfleet-local",
    "podfleet:sshPrivateKey": "[secret]",
    "podfleet:image": "localhost/podfleet-node:dev",
    "podfleet:gpuTypes": '["NVIDIA RTX A4000"]',
    "podfleet:queueUrl": "http://127.0.0.1:8792",
}


def problems(**changes: object) -> list[str]:
    values = {**GOOD, **{f"podfleet:{key}": value for key, value in changes.items()}}
    with pytest.raises(ConfigError) as caught:
        parse({key: value for key, value in values.items() if value is not None}, stack="local")
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_values_as_pulumi_stores_them_are_understood() -> None:
    config = parse({**GOOD, "podfleet:pods": "2", "podfleet:maxPods": "4", "podfleet:join": "false"}, stack="local")
    assert (config.pods, config.max_pods, config.join) == (2, 4, False)
    assert config.gpu_types == ("NVIDIA RTX A4000",)
    assert config.wanted_slots == ("slot-01", "slot-02")


def test_other_namespaces_are_left_alone() -> None:
    assert parse({**GOOD, "tailscale:baseUrl": "x"}, stack="local").uid == "local-0a1b2c3d"


def test_all_problems_at_once_each_naming_its_key() -> None:
    lines = problems(podz="3", pods="many", cloud="BOTH", image=None)
    assert [line.split(": ")[0] for line in lines] == [
        "podfleet:podz",
        "podfleet:pods",
        "podfleet:image",
        "podfleet:cloud",
    ]
    assert "did you mean podfleet:pods?" in lines[0]
    assert "'SECURE', 'COMMUNITY' or 'ALL'" in lines[3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uid": "prod-0a1b2c3d"}, "is not of stack"),
        ({"uid": None}, "podfleet env"),
        ({"pods": "5"}, "podfleet:maxPods (3)"),
        ({"minPods": "9", "maxPods": "3"}, "minPods"),
        ({"sshPrivateKey": None}, "sshPrivateKey"),
        ({"join": "true"}, "needs podfleet:tailnet"),
        ({"slots": '["one"]'}, "slot-01"),
        ({"gpuTypes": "NVIDIA"}, "podfleet:gpuTypes"),
        ({"minCudaVersion": "12"}, "podfleet:minCudaVersion"),
        ({"maxRuntimeMinutes": "inf"}, "podfleet:maxRuntimeMinutes"),
        ({"runpodUrl": "http://:8790"}, "podfleet:runpodUrl: has to be a URL"),
        ({"queueUrl": "http://server:port"}, "podfleet:queueUrl: has to be a URL"),
        ({"tailscaleUrl": "http://[::1"}, "podfleet:tailscaleUrl: has to be a URL"),
    ],
)
def test_bad_input_is_one_line(changes: dict[str, object], words: str) -> None:
    lines = problems(**changes)
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_a_secret_never_stands_in_a_problem() -> None:
    assert not any("hunter2" in line for line in problems(sshPrivateKey=["hunter2"]))


@pytest.mark.parametrize(
    ("pods", "slots", "expected"),
    [
        (2, (), ("slot-01", "slot-02")),
        (3, ("slot-02",), ("slot-01", "slot-02", "slot-03")),
        (1, ("slot-02", "slot-05"), ("slot-02",)),
        (0, ("slot-01",), ()),
    ],
)
def test_pods_wins_over_slots(pods: int, slots: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert slots_for(pods, slots) == expected
