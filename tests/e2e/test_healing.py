"""An update was killed, and a person types the next command: nothing else is needed, and nothing is left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.crash import hold
from tests.e2e.fleet import PREFIX, UP, Fleet
from tools.stage import STACK

pytestmark = [pytest.mark.engine, pytest.mark.slow]
LOOK_AGAIN_S = 3


@pytest.fixture
def killed(fleet: Fleet) -> Iterator[Callable[[str], int]]:
    """Kill an engine in mid-create; everything that it has started lives on. Answers its pid."""

    def kill(phase: str) -> int:
        fleet.config(bootstrap="none", pods=2, reconcileSeconds=LOOK_AGAIN_S)
        held = fleet.fault(**hold("pods.create", phase))
        engine = fleet.start(*UP)
        fleet.wait_for_hit(held)
        engine.kill()
        engine.wait()
        assert leftovers(fleet), "provider and program live on"
        return engine.pid

    yield kill
    fleet.config(reconcileSeconds=None)


def leftovers(fleet: Fleet) -> list[int]:
    """Processes of the stage's engines."""
    mark = f"PULUMI_BACKEND_URL={fleet.stage.env['PULUMI_BACKEND_URL']}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def state_folder(fleet: Fleet) -> Path:
    return fleet.stage.project / ".podfleet" / "state" / ".pulumi"


def locks(fleet: Fleet) -> list[Path]:
    return list((state_folder(fleet) / "locks").rglob("*.json"))


def checkpoint(fleet: Fleet) -> Path:
    return state_folder(fleet) / "stacks" / "podfleet" / f"{STACK}.json"


def pending(fleet: Fleet) -> list[Any]:
    latest: dict[str, Any] = json.loads(checkpoint(fleet).read_text())["checkpoint"]["latest"]
    return list(latest.get("pending_operations") or ())


def uid(fleet: Fleet) -> str:
    return str(yaml.safe_load(fleet.stage.stack_file.read_text())["config"]["podfleet:uid"])


def rent(fleet: Fleet, name: str, *, uid: str) -> str:
    """A pod that no engine knows of."""
    body = {
        "name": name,
        "image": "localhost/podfleet-node:dev",
        "gpu": {"id": "NVIDIA RTX A4000", "count": 1},
        "env": {"PODFLEET_UID": uid},
    }
    return str(fleet.stage.cloud("/v2/pods", "POST", json=body)["id"])


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("podfleet: ") for line in done.stderr.splitlines() if line.startswith("podfleet: ")]


@pytest.mark.parametrize("phase", ["before", "after"])
def test_killed_in_a_create_then_up(fleet: Fleet, killed: Callable[[str], int], phase: str) -> None:
    pid = killed(phase)
    done = fleet.stage.podfleet("up", STACK)
    fleet.release()
    assert done.returncode == 0, done.stderr
    line = said(done)[0]
    assert line.startswith("an update was killed here: ")
    assert f"(pid {pid}) is dead: its lock is removed" in line
    assert "processes that it had left running were ended" in line
    assert "operations were pending" in line
    assert fleet.slots() == ["slot-01", "slot-02"]
    assert (locks(fleet), pending(fleet), leftovers(fleet)) == ([], [], [])
    assert "pending operations" not in done.stderr, "the engine does not warn any more"
    again = fleet.stage.podfleet("up", STACK)
    assert (again.returncode, said(again)) == (0, []), "nothing is healed twice"


@pytest.mark.parametrize("phase", ["before", "after"])
def test_killed_in_a_create_then_destroy(fleet: Fleet, killed: Callable[[str], int], phase: str) -> None:
    killed(phase)
    done = fleet.stage.podfleet("destroy", STACK)
    fleet.release()
    assert done.returncode == 0, done.stderr
    assert fleet.pods() == []
    assert (locks(fleet), leftovers(fleet)) == ([], [])


def test_a_pod_that_comes_while_the_fleet_is_destroyed_is_found_by_guards_looks(
    fleet: Fleet, killed: Callable[[str], int], wait_for: Callable[..., None]
) -> None:
    killed("before")
    destroy = fleet.stage.spawn([str(Path(sys.executable).parent / "podfleet"), "destroy", STACK])
    wait_for(
        lambda: any(op["type"] == "deleting" and op["resource"]["type"].endswith("Guard") for op in pending(fleet)),
        "Guard is being deleted",
    )
    rent(fleet, f"{PREFIX}slot-01-0badcafe", uid=uid(fleet))  # as the dead provider's last request would
    rent(fleet, f"{PREFIX}slot-02-0badcafe", uid="local-ffffffff")
    shown, _ = destroy.communicate(timeout=60)
    assert destroy.returncode == 0, shown
    assert "rented by a killed update" in shown
    (foreign,) = fleet.pods()
    assert foreign["name"].startswith(f"{PREFIX}slot-02-"), "another's pod is not touched"
    fleet.stage.cloud(f"/v2/pods/{foreign['id']}", "DELETE")


def test_unlock_alone_says_what_it_did_and_what_is_left(fleet: Fleet, killed: Callable[[str], int]) -> None:
    killed("after")
    done = fleet.stage.podfleet("unlock", STACK)
    assert done.returncode == 0, done.stderr
    assert "is dead: its lock is removed" in done.stdout
    assert f"pod {PREFIX}slot-01-" in done.stdout or f"pod {PREFIX}slot-02-" in done.stdout
    assert "is not in the state: `podfleet up` takes it over" in done.stdout
    assert (locks(fleet), pending(fleet), leftovers(fleet)) == ([], [], [])
    fleet.release()
    fleet.up()
    assert fleet.slots() == ["slot-01", "slot-02"]
    assert fleet.stage.podfleet("unlock", STACK).stdout.startswith("nothing to unlock")


def test_a_lock_whose_process_lives_stays(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=1)
    held = fleet.fault(**hold("pods.create", "after"))
    engine = fleet.start(*UP)
    try:
        fleet.wait_for_hit(held)
        os.kill(engine.pid, signal.SIGSTOP)  # it cannot even answer
        time.sleep(0.1)
        before = (locks(fleet), leftovers(fleet))
        for command in ("unlock", "up", "destroy"):
            done = fleet.stage.podfleet(command, STACK)
            assert done.returncode == 1
            (line,) = said(done)
            assert line.startswith(f"another update of this stack is running (pid {engine.pid} on ")
            assert "it is running; wait for it" in line
        assert (locks(fleet), leftovers(fleet)) == before
    finally:
        os.kill(engine.pid, signal.SIGCONT)
        fleet.release()
        assert engine.wait(120) == 0


@pytest.mark.parametrize("how", ["empty", "torn"])
def test_a_broken_state_is_put_back_from_its_copy(fleet: Fleet, how: str) -> None:
    fleet.config(bootstrap="none", pods=1)
    fleet.up()
    fleet.config(pods=2)
    fleet.up()
    gone, kept = fleet.pod("slot-01")["id"], fleet.pod("slot-02")["id"]
    whole = checkpoint(fleet).read_bytes()
    checkpoint(fleet).write_bytes(b"" if how == "empty" else whole[: len(whole) // 2])
    fleet.stage.cloud(f"/v2/pods/{gone}", "DELETE")  # the copy will know a pod that is no more
    done = fleet.stage.podfleet("up", STACK)
    assert done.returncode == 0, done.stderr
    assert ": put back the copy of " in said(done)[0]
    assert fleet.slots() == ["slot-01", "slot-02"]
    assert fleet.pod("slot-02")["id"] == kept
