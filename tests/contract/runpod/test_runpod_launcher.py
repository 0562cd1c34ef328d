"""Our launcher of dynamic resources under the real engine, and the stock one where ours is not there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scratch import Scratch, engine_path

from localcloud.testing import RunningCloud, wait_until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("pulumi", path=engine_path()), reason="no Pulumi engine on PATH"),
]
QUIET = ("-s", "t", "--yes", "--skip-preview", "--non-interactive", "--generate-code=false")
IMPORT = ("import", "pulumi-python:dynamic/runpod:Pod")
AT_ONCE_S = 4.0  # an engine and a program end in about one


@pytest.fixture
def scratch(tmp_path: Path, cloud: RunningCloud) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch", cloud)
    scratch.lay()
    yield scratch
    if scratch.leftovers():
        scratch.recover()


def slots(*numbers: int) -> list[str]:
    return [f"slot-{number:02}" for number in numbers]


def test_many_creates_at_once_and_no_warning_of_a_second_launcher(scratch: Scratch) -> None:
    scratch.config(pods=8)
    held = scratch.cloud.fault("pods.create", "hold", times=8)
    scratch.start_up()
    scratch.cloud.wait_for_hit(held, hits=8, timeout_s=30)
    scratch.cloud.release()
    assert scratch.end_of_up() == 0, scratch.log.read_text()
    assert "warning" not in scratch.log.read_text()
    assert scratch.pods() == slots(*range(1, 9))


def test_without_ours_the_stock_launcher_does_the_same(tmp_path: Path, cloud: RunningCloud) -> None:
    scratch = Scratch(tmp_path / "scratch", cloud, launcher="stock")
    scratch.lay()
    scratch.config(pods=5)
    assert scratch.up() == 0, scratch.text
    scratch.config(pods=1)
    assert scratch.up() == 0, scratch.text
    assert scratch.pods() == slots(1)
    assert scratch.refresh() == 0, scratch.text
    assert scratch.up("--expect-no-changes") == 0, scratch.text
    assert scratch.destroy() == 0, scratch.text
    assert scratch.pods() == []


def test_what_one_launcher_has_made_the_other_one_works_on(scratch: Scratch) -> None:
    scratch.config(pods=2)
    assert scratch.up(env={"PODFLEET_LAUNCHER": "stock"}) == 0, scratch.text
    before = scratch.ids()
    assert scratch.up("--expect-no-changes") == 0, scratch.text
    assert scratch.refresh() == 0, scratch.text
    assert scratch.up("--expect-no-changes", env={"PODFLEET_LAUNCHER": "stock"}) == 0, scratch.text
    assert scratch.ids() == before


def test_pods_that_never_boot_hold_up_no_others(scratch: Scratch) -> None:
    scratch.config(pods=8, reachable="true")
    scratch.cloud.fault("pods.boot", "hold", times=5)
    scratch.start_up()
    booted = r"PodReachable slot-\d\d-reachable created"
    wait_until(lambda: len(re.findall(booted, scratch.log.read_text())) == 3, timeout_s=40, what="three others")
    assert scratch.interrupt_engine() != 0


def test_ctrl_c_ends_what_only_waits_and_finishes_what_was_sent(scratch: Scratch) -> None:
    scratch.config(pods=2, reachable="true")
    scratch.cloud.fault("pods.boot", "hold", times=0)
    scratch.start_up()
    wait_until(lambda: "reachable creating" in scratch.log.read_text(), timeout_s=30, what="PodReachable waits")
    scratch.settle(0.5)
    started_s = time.monotonic()
    assert scratch.interrupt_engine() != 0
    assert time.monotonic() - started_s < AT_ONCE_S, scratch.log.read_text()
    assert "interrupted (the update was cancelled)" in scratch.log.read_text()
    scratch.cloud.release()

    scratch.config(pods=4)
    held = scratch.cloud.fault("pods.create", "hold", "after", times=2)
    scratch.start_up()
    scratch.cloud.wait_for_hit(held, hits=2, timeout_s=30)
    scratch.send_interrupt()
    scratch.settle(0.5)
    scratch.cloud.release()
    assert scratch.end_of_up() != 0
    assert scratch.up() == 0, scratch.text
    assert "pod.adopted" not in scratch.text, "both were in the state"
    assert scratch.pods() == slots(1, 2, 3, 4)


def test_ctrl_c_rents_nothing_that_waits_for_the_rate_limit(scratch: Scratch) -> None:
    scratch.config(pods=3)
    limited = {"Retry-After": "60"}
    held = scratch.cloud.fault("pods.create", "status", status=429, headers=limited, times=0)
    scratch.start_up()
    scratch.cloud.wait_for_hit(held, timeout_s=30)
    started_s = time.monotonic()
    assert scratch.interrupt_engine() != 0
    assert time.monotonic() - started_s < AT_ONCE_S, scratch.log.read_text()
    assert scratch.pods() == []


def test_it_goes_when_its_engine_is_killed_and_rents_nothing_more(scratch: Scratch) -> None:
    scratch.config(pods=6, reachable="true")
    scratch.cloud.fault("pods.boot", "hold", times=0)
    held = scratch.cloud.fault("pods.create", "hold", "before", times=2)
    scratch.start_up()
    scratch.cloud.wait_for_hit(held, hits=2, timeout_s=30)
    wait_until(lambda: len(scratch.pods()) == 4, what="the other four pods")
    scratch.kill_engine()
    wait_until(scratch.launchers, what="the launcher that waits for its two answers")
    scratch.cloud.release(held)
    wait_until(lambda: not scratch.launchers(), timeout_s=10, what="the end of the launcher")
    assert len(scratch.pods()) == 6, "two were on their way"
    scratch.recover()
    scratch.cloud.release()
    assert scratch.destroy() == 0, scratch.text
    assert scratch.pods() == []


def test_a_pod_is_imported_by_its_id_and_not_replaced(scratch: Scratch) -> None:
    scratch.config(pods=2, uid="t-00000001")
    assert scratch.up() == 0, scratch.text
    before = scratch.ids()
    pod_id = next(pod["id"] for pod in scratch.cloud.live_pods() if "slot-01" in pod["name"])
    urn = scratch.urn("slot-01")
    assert scratch.run("state", "delete", "--yes", urn, "-s", "t", "--target-dependents") == 0, scratch.text

    assert scratch.run(*IMPORT, "slot-01", "nosuchpod", *QUIET) != 0
    assert "resource 'nosuchpod' does not exist" in scratch.text
    body = {"name": "podfleet-t-slot-01-deadbeef", "image": "x", "gpu": {"id": "NVIDIA L4"}}
    foreign = scratch.cloud.client().post("/v2/pods", json=body).json()["id"]
    assert scratch.run(*IMPORT, "slot-01", foreign, *QUIET) != 0
    assert "is not of this stack's uid (t-00000001): not imported" in scratch.text

    assert scratch.run(*IMPORT, "slot-01", pod_id, *QUIET) == 0, scratch.text
    assert scratch.run("preview", "-s", "t", "--non-interactive", "--json") == 0, scratch.text
    assert '"op": "replace"' not in scratch.text
    assert scratch.up() == 0, scratch.text
    assert scratch.ids() - {foreign} == before
    assert scratch.up("--expect-no-changes") == 0, scratch.text
    assert scratch.destroy() == 0, scratch.text
    assert scratch.ids() == {foreign}


def test_only_pods_are_imported(scratch: Scratch) -> None:
    assert scratch.run("import", "pulumi-python:dynamic/runpod:Guard", "guard", "x", *QUIET) != 0
    assert "cannot be imported by its id; of podfleet's resources only" in scratch.text
