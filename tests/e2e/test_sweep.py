"""`podfleet sweep` beside a real engine: an update at work is left alone, a killed one is cleaned up after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.crash import hold
from tests.e2e.fleet import UP, Fleet
from tools.stage import STACK

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def quick(fleet: Fleet) -> Iterator[Fleet]:
    """Pods may be swept at once, so that age protects none of them."""
    fleet.config(bootstrap="none", pods=2, sweepMinAgeMinutes=0, sweepLooksApartMinutes=0.01)
    yield fleet
    fleet.config(sweepMinAgeMinutes=None, sweepLooksApartMinutes=None)


def sweep(fleet: Fleet, **env: str) -> tuple[int, list[dict[str, Any]]]:
    done = fleet.stage.podfleet("sweep", STACK, "--yes", "--json", env={**fleet.stage.env, **env})
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["found"]


def test_an_up_at_work_loses_no_pod(quick: Fleet) -> None:
    held = quick.fault(**hold("pods.create", "after"))  # rented, and not in the state yet
    engine = quick.start(*UP)
    try:
        quick.wait_for_hit(held)
        before = {pod["id"] for pod in quick.pods()}
        code, found = sweep(quick)
        assert (code, {each["ended"] for each in found}) == (3, {False})
        assert {pod["id"] for pod in quick.pods()} >= before > set()
    finally:
        quick.release()
        assert engine.wait(120) == 0
    assert quick.slots() == ["slot-01", "slot-02"]
    assert sweep(quick) == (0, [])


def test_what_a_killed_up_has_rented_is_ended_without_engine_and_passphrase(quick: Fleet) -> None:
    quick.config(pods=1)
    quick.up()
    known = quick.pod("slot-01")["id"]
    quick.config(pods=2)
    held = quick.fault(**hold("pods.create", "after"))
    engine = quick.start(*UP)
    quick.wait_for_hit(held)
    engine.kill()
    engine.wait()
    assert len(quick.pods()) == 2
    bare = {"PATH": "/nonexistent", "PULUMI_CONFIG_PASSPHRASE": "another one"}
    code, found = sweep(quick, **bare)
    quick.release()
    assert (code, [each["reason"] for each in found]) == (0, ["not in the state"])
    assert [pod["id"] for pod in quick.pods()] == [known]
    assert quick.stage.podfleet("unlock", STACK).returncode == 0
