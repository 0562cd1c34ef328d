"""Registry login, volume, balance and capacity in the program: what is made, in which order, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from podfleet.components import notices
from podfleet.podspec import is_account_name
from podfleet.providers.runpod.wire_account import Balance

Run = Callable[..., Any]  # answers the recorder of conftest.py
LOGIN = {"registryUsername": "me", "registryPassword": "CANARY-REGISTRY"}
VOLUME = {"volumeGb": 50, "volumeDataCenterId": "EU-RO-1"}
UID, PREFIX = "local-0a1b2c3d", "podfleet-local-"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the program tells, by kind."""
    seen: dict[str, list[str]] = {"info": [], "warn": []}
    for kind, texts in seen.items():
        monkeypatch.setattr(pulumi.log, kind, lambda text, *_args, into=texts, **_kw: into.append(text))
    return seen


def test_without_them_there_is_neither_login_nor_volume(run: Run) -> None:
    seen = run(pods="1")
    assert seen.names("runpod:Registry") == seen.names("runpod:Volume") == []
    assert seen.names("runpod:Holdings") == ["holdings"]
    assert not {"registryId", "volumeId", "volumePath"} & seen.inputs("slot-01-pod").keys()


def test_pods_pull_with_the_login_and_it_is_a_secret_of_the_state(run: Run) -> None:
    seen = run(pods="1", **LOGIN)
    made = seen.inputs("registry")
    assert is_account_name(made["name"], prefix=PREFIX, uid=UID)
    assert made["password"] == {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "value": "CANARY-REGISTRY",
    }
    assert seen.inputs("slot-01-pod")["registryId"] == "registry-id"
    for name in ("slot-01-pod", "guard", "sweep", "holdings"):
        assert "CANARY" not in str(seen.inputs(name))


def test_another_login_changes_the_login_and_no_pods_name(run: Run) -> None:
    before, after = run(pods="1", **LOGIN), run(pods="1", **{**LOGIN, "registryPassword": "new"})
    assert before.inputs("registry")["name"] != after.inputs("registry")["name"]
    assert before.inputs("slot-01-pod")["name"] == after.inputs("slot-01-pod")["name"]


def test_pods_mount_the_volume_where_it_is(run: Run) -> None:
    seen = run(pods="1", **VOLUME)
    made = seen.inputs("models")
    assert is_account_name(made["name"], prefix=PREFIX, uid=UID)
    assert (made["sizeGb"], made["dataCenterId"], made["type"]) == (50, "EU-RO-1", "STANDARD")
    pod = seen.inputs("slot-01-pod")
    assert (pod["volumeId"], pod["volumePath"], pod["dataCenterIds"]) == ("models-id", "/models", ["EU-RO-1"])
    assert pod["env"]["PODFLEET_MODEL_CACHE"] == "/models"


def test_what_pods_need_is_asked_for_before_guard(run: Run) -> None:
    seen = run(pods="1", tailnet="-", **LOGIN, **VOLUME)
    order = [name for _, name, _ in seen.seen]
    for name in ("registry", "models", "tailnet-secret"):
        assert order.index("holdings") < order.index(name) < order.index("guard") < order.index("slot-01-pod")


def test_the_plan_says_how_long_the_money_lasts(run: Run, said: dict[str, list[str]]) -> None:
    run(pods="0")
    assert "balance $3.10" in said["info"]
    assert said["warn"] == []


def test_little_money_is_a_warning_and_stops_nothing(
    run: Run, said: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "read_balance", lambda _access: Balance(3.1, 0.8))
    seen = run(pods="1")
    (warning,) = said["warn"]
    assert warning.startswith("balance $3.10, lasts 3.9 h at $0.80/h")
    assert seen.names("runpod:Pod") == ["slot-01-pod"]


def test_an_unreadable_balance_says_nothing(
    run: Run, said: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "read_balance", lambda _access: None)
    run(pods="1")
    assert not [text for texts in said.values() for text in texts if "balance" in text]


def test_spot_is_one_warning_and_on_demand_pods(run: Run, said: dict[str, list[str]]) -> None:
    seen = run(pods="2", capacity="spot-if-offered")
    (warning,) = said["warn"]
    assert warning.startswith(
        "podfleet:capacity: spot-if-offered: RunPod offers no spot pods: on-demand pods are taken"
    )
    assert seen.names("runpod:Pod") == ["slot-01-pod", "slot-02-pod"]
