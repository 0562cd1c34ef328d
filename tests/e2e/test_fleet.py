"""The fleet follows its config, with the real engine: sizes, images, vanished and failed pods, capacity, targets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.e2e.audio import silence
from tests.e2e.fleet import Fleet, slot_of

pytestmark = pytest.mark.engine
GPU = "NVIDIA RTX A4000"
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)


def slots(*numbers: int) -> list[str]:
    return [f"slot-{number:02d}" for number in numbers]


def most_at_once(events: list[dict], slot: str) -> int:
    """How many pods of a slot were there at the same moment, from the cloud's event log."""
    alive: dict[str, str] = {}
    most = 0
    for event in events:
        if event["kind"] == "pod.created" and slot_of(event) == slot:
            alive[event["pod_id"]] = slot
        elif event["kind"] == "pod.ended":
            alive.pop(event["pod_id"], None)
        most = max(most, len(alive))
    return most


def test_the_size_follows_the_config_and_a_second_up_changes_nothing(fleet: Fleet) -> None:
    for size in (0, 2, 4, 1, 0):
        fleet.config(pods=size)
        fleet.up()
        assert fleet.slots() == slots(*range(1, size + 1))
        fleet.up("--expect-no-changes")


def test_a_changed_image_replaces_each_pod_and_never_has_two_of_one_slot(fleet: Fleet) -> None:
    fleet.config(pods=2)
    fleet.up()
    before = {slot_of(pod): pod["id"] for pod in fleet.pods()}
    start = fleet.last_event()
    fleet.config(image="localhost/podfleet-node:next")
    fleet.up()
    assert fleet.slots() == slots(1, 2)
    after = {slot_of(pod): pod["id"] for pod in fleet.pods()}
    assert not set(before.values()) & set(after.values())
    events = fleet.events()
    assert {slot: most_at_once(events, slot) for slot in slots(1, 2)} == {"slot-01": 1, "slot-02": 1}
    assert [event["kind"] for event in events if event["seq"] > start].count("pod.created") == 2


def test_budgets_limits_and_keys_touch_no_pod(fleet: Fleet) -> None:
    fleet.config(pods=1)
    fleet.up()
    before = fleet.pod("slot-01")["id"]
    start = fleet.last_event()
    fleet.config(maxRuntimeMinutes=30, maxPods=5, jobsPerPod=2, drainDeadlineSeconds=20)
    fleet.up()
    assert fleet.pod("slot-01")["id"] == before
    assert not [event for event in fleet.events(start) if event["kind"].startswith("pod.")]
    fleet.config(maxRuntimeMinutes=60, maxPods=6, jobsPerPod=4)


def test_vanished_and_exited_pods_are_rented_again_after_refresh(fleet: Fleet, wait_for: Callable[..., None]) -> None:
    fleet.config(pods=2)
    fleet.up()
    vanished, exited = fleet.pod("slot-01")["id"], fleet.pod("slot-02")["id"]
    fleet.stage.cloud(f"/v2/pods/{vanished}", "DELETE")
    fleet.stage.cloud(f"/v2/pods/{exited}/action", "POST", json={"action": "stop"})
    wait_for(lambda: fleet.pod("slot-02")["status"] == "EXITED", "the stopped pod is EXITED")
    fleet.refresh()
    fleet.up()
    assert fleet.slots() == slots(1, 2)
    assert not {vanished, exited} & {pod["id"] for pod in fleet.pods()}
    assert len(fleet.pods()) == 2, "the EXITED pod was ended, too: it costs money"


def test_one_pod_that_never_boots_holds_up_no_other(fleet: Fleet, wait_for: Callable[..., None]) -> None:
    fleet.config(pods=3)
    for number in range(2):
        fleet.add_job(silence(), f"job {number}")
    stuck = fleet.fault(op="pods.boot", phase="before", action="hold", name_contains="slot-02")
    up = fleet.start("up", "--yes", "--skip-preview")
    try:
        wait_for(
            lambda: sum(job["status"] == "completed" for job in fleet.jobs()) >= 2,
            "two jobs are completed while slot-02 boots",
        )
        assert up.poll() is None
        assert fleet.pod("slot-02")["status"] == "PROVISIONING"
        workers = {str(job["completed_by"]) for job in fleet.jobs()}
        assert not any("slot-02" in worker for worker in workers)
    finally:
        fleet.release(stuck)
        up.wait(120)


def test_a_slot_without_capacity_blocks_no_scale_down(fleet: Fleet) -> None:
    fleet.config(pods=3)
    fleet.up()
    full = {"status": 400, "detail": NO_CAPACITY, "times": 100, "name_contains": "slot-02"}
    fleet.fault(op="pods.create", phase="before", action="status", **full)
    fleet.config(pods=2, image="localhost/podfleet-node:next")
    shown = fleet.up(rc=1)
    assert fleet.slots() == ["slot-01"], "slot-03 went, slot-01 was replaced, slot-02 waits for a host"
    assert "no longer any instances" in shown
    fleet.release()
    fleet.up()
    assert fleet.slots() == slots(1, 2)


def test_up_with_a_target_ends_nothing(fleet: Fleet) -> None:
    fleet.config(pods=2)
    fleet.up()
    before = sorted(pod["id"] for pod in fleet.pods())
    fleet.config(image="localhost/podfleet-node:next")
    fleet.up("--target", fleet.urn("guard"), "--target", fleet.urn("sweep"))
    assert sorted(pod["id"] for pod in fleet.pods()) == before
    fleet.up()
    assert fleet.slots() == slots(1, 2)
    assert not set(before) & {pod["id"] for pod in fleet.pods()}


def test_a_fleet_whose_state_is_lost_is_listed_and_left_alone(fleet: Fleet) -> None:
    fleet.config(pods=1)
    fleet.up()
    before = fleet.pod("slot-01")["id"]
    exported = fleet.stage.pulumi("stack", "export").stdout
    fleet.stage.pulumi("state", "delete", "--yes", "--all", "--force")
    try:
        shown = fleet.up(rc=1)
        assert before in shown
        assert [pod["id"] for pod in fleet.pods()] == [before]
        fleet.config(adopt="true")
        fleet.up()
        assert [pod["id"] for pod in fleet.pods()] == [before]
    finally:
        fleet.config(adopt=None)
        assert exported


def test_foreign_pods_are_never_touched(fleet: Fleet) -> None:
    body = {
        "name": "podfleet-local-slot-01-deadbeef",
        "image": "x",
        "gpu": {"id": GPU},
        "env": {"PODFLEET_UID": "local-99999999"},
    }
    foreign = fleet.stage.cloud("/v2/pods", "POST", json=body)["id"]
    try:
        fleet.config(pods=1)
        fleet.up()
        fleet.destroy()
        assert [pod["id"] for pod in fleet.stage.pods()] == [foreign]
    finally:
        fleet.stage.cloud(f"/v2/pods/{foreign}", "DELETE")
