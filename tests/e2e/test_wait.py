"""`podfleet up --wait` with the real engine: a fleet that comes up, hosts that do not, and an interrupt."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.fleet import Fleet, slot_of
from tools.stage import STACK

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _a_clean_list(fleet: Fleet) -> Iterator[None]:
    """Hosts that one test has made bad are good in the next one."""
    fleet.config(reachableDeadlineMinutes=0.5, replacements=3)
    avoid_file(fleet).unlink(missing_ok=True)
    yield
    avoid_file(fleet).unlink(missing_ok=True)
    fleet.config(reachableDeadlineMinutes=1, replacements=None)


def avoid_file(fleet: Fleet) -> Any:
    return fleet.stage.project / ".podfleet" / "avoid" / f"{STACK}.json"


def up_and_wait(fleet: Fleet, rc: int = 0) -> subprocess.CompletedProcess[str]:
    done = fleet.stage.podfleet("up", STACK, "--wait")
    assert done.returncode == rc, done.stdout + done.stderr
    return done


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("podfleet: ") for line in done.stderr.splitlines() if line.startswith("podfleet: ")]


def nodes(fleet: Fleet) -> list[str]:
    return [node["name"] for node in fleet.stage.queue("/api/nodes")["nodes"] if node["status"] == "online"]


def test_it_returns_when_every_node_has_reported(fleet: Fleet) -> None:
    fleet.config(pods=2)
    done = up_and_wait(fleet)
    assert done.stdout.startswith("2 pods ready in "), done.stdout
    assert done.stdout.count("\n") == 1
    assert {pod["name"] for pod in fleet.pods()} <= set(nodes(fleet))
    seen = json.loads(fleet.stage.podfleet("status", STACK, "--json").stdout)
    assert [(row["slot"], row["node"]) for row in seen["pods"]] == [("slot-01", "idle"), ("slot-02", "idle")]
    assert not any(seen["drift"].values())
    doctor = fleet.stage.podfleet("doctor", STACK, "--json")
    assert doctor.returncode == 0, doctor.stdout


@pytest.mark.parametrize("bootstrap", ["none", "image"])
def test_hosts_that_fail_at_boot_are_left_for_others(fleet: Fleet, bootstrap: str) -> None:
    fleet.config(pods=3, bootstrap=bootstrap)
    since = fleet.last_event()
    driver = fleet.fault(kind="driver-old", name_contains="slot-01")
    broken = fleet.fault(kind="boot-error", name_contains="slot-02")
    done = up_and_wait(fleet)
    assert all(fleet.was_hit(fault, since) for fault in (driver, broken))
    assert done.stdout.startswith("3 pods ready in ")
    assert "2 replaced: " in done.stdout
    assert "driver too old on " in done.stdout
    lines = said(done)
    assert any(
        "slot-01: " in line and "unsatisfied condition: cuda" in line and line.endswith("; ended") for line in lines
    )
    assert any("slot-02: " in line and "it is ERROR; its system log ends: " in line for line in lines)
    assert fleet.slots() == ["slot-01", "slot-02", "slot-03"]
    assert len(fleet.pods()) == 3, "the failed ones are ended"
    bad = {(host["gpu"], host["cloud"], host["data_center_id"]) for host in json.loads(avoid_file(fleet).read_text())}
    new = [pod for pod in fleet.pods() if slot_of(pod) != "slot-03"]
    assert bad.isdisjoint((pod["gpu"]["id"], pod["cloud"], pod["dataCenterId"]) for pod in new)
    fleet.up("--expect-no-changes")


def test_a_budget_ends_and_what_is_left_is_told(fleet: Fleet) -> None:
    fleet.config(pods=2, bootstrap="none", replacements=1, reachableDeadlineMinutes=0.2)
    fleet.fault(kind="boot-null", name_contains="slot-02", times=0)
    try:
        done = up_and_wait(fleet, rc=1)
    finally:
        fleet.release()
    lines = said(done)
    assert done.stdout == ""
    assert any(line.startswith("1 of 2 pods ready after ") and "1 replaced: no container" in line for line in lines)
    assert any("slot-02: " in line and "RUNNING without a container for " in line for line in lines)
    assert "no replacement is left (podfleet:replacements is 1)" in lines
    assert lines[-1].startswith("1 pod is there, $")
    assert [slot_of(pod) for pod in fleet.pods()] == ["slot-01"]


def test_ctrl_c_leaves_the_fleet_as_it_is(fleet: Fleet, wait_for: Callable[..., None]) -> None:
    fleet.config(pods=2, bootstrap="none")
    fleet.fault(op="pods.boot", phase="before", action="hold", name_contains="slot-02")
    log = fleet.stage.logs / "wait.log"
    waiting = fleet.stage.spawn(["podfleet", "up", STACK, "--wait"], log=log)
    try:
        wait_for(lambda: "podfleet: slot-01: ready" in log.read_text(), "the first pod is ready")
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(30) == 130
    finally:
        waiting.kill()
        fleet.release()
    assert "podfleet: interrupted: the fleet is as it is; 2 pods are there, $" in log.read_text()
    assert fleet.slots() == ["slot-01", "slot-02"]
