"""What the cloud does wrong, and two updates at once: one clear line each, nothing orphaned, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import asyncssh
import pytest
from tests.e2e.audio import silence
from tests.e2e.fleet import DESTROY, UP, Fleet, slot_of
from tests.e2e.untouched import resources
from tools.stage import STACK, Stage

pytestmark = pytest.mark.engine
WORKERS = 64  # of our launcher: so many creates may be on their way when the first answer comes
RETRY_AFTER_S = 2
DRAIN_DEADLINE_S = 20  # as in the stage's settings
ROUNDS = 3  # the default of createRounds
PROSE = "the moon is in the wrong house"


@pytest.fixture(autouse=True)
def _nothing_lost(fleet: Fleet, running_stage: Stage) -> Iterator[None]:
    """Two jobs wait while a test does its worst: they are there afterwards, and none has failed."""
    mine = {fleet.add_job(silence(), f"job {number}") for number in range(2)}
    yield
    states = {job["id"]: job["status"] for job in fleet.jobs() if job["id"] in mine}
    assert states.keys() == mine
    assert set(states.values()) <= {"queued", "running", "completed"}


def requests(fleet: Fleet, op: str, since: int) -> list[dict[str, Any]]:
    return [event for event in fleet.events(since) if event["kind"] == "request" and event["op"] == op]


def last_lines(stderr: str) -> list[str]:
    """What `podfleet` itself says, after the engine's own output."""
    return [line.removeprefix("podfleet: ") for line in stderr.splitlines() if line.startswith("podfleet: ")]


def test_lost_answers_a_late_500_and_a_429_in_one_up_rent_each_slot_once(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=3)
    since = fleet.last_event()
    limited = {"status": 429, "headers": {"Retry-After": str(RETRY_AFTER_S)}}
    faults = [
        fleet.fault(op="pods.create", phase="before", action="status", name_contains="slot-01", **limited),
        fleet.fault(op="pods.create", phase="after", action="drop", name_contains="slot-02"),
        fleet.fault(op="pods.create", phase="after", action="status", name_contains="slot-03", status=500),
    ]
    shown = fleet.up()
    assert all(fleet.was_hit(fault, since) for fault in faults)
    assert fleet.slots() == ["slot-01", "slot-02", "slot-03"]
    posts = requests(fleet, "pods.create", since)
    assert Counter(slot_of(post) for post in posts) == {"slot-01": 2, "slot-02": 1, "slot-03": 1}
    refused, accepted = (post for post in posts if slot_of(post) == "slot-01")
    assert (refused["status"], accepted["status"]) == (429, 201)
    assert RETRY_AFTER_S <= accepted["ts"] - refused["ts"] < RETRY_AFTER_S + 10
    assert shown.count("pod.found_after_unclear_create") >= 2
    listed = {pod["id"] for pod in fleet.pods()}
    assert {found["id"] for found in resources(fleet) if found["type"].endswith("runpod:Pod")} == listed
    fleet.up("--expect-no-changes")


def test_without_balance_the_whole_run_stops(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=6)
    since = fleet.last_event()
    fleet.fault(op="pods.create", phase="before", action="status", status=402, times=100)
    done = fleet.stage.podfleet("up", STACK)
    assert done.returncode == 1
    lines = last_lines(done.stderr)
    assert lines
    for line in lines:
        assert "402: Your account balance is too low to rent a pod" in line
        assert "nothing was rented; top up the account" in line
    posts = requests(fleet, "pods.create", since)
    assert len(posts) <= WORKERS
    assert len({post["name"] for post in posts}) == len(posts), "no second GPU type is asked for"
    assert fleet.pods() == []


def test_refusals_in_prose_are_told_and_leave_nothing(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=2)
    since = fleet.last_event()
    refusal = {"op": "pods.create", "phase": "before", "action": "status", "status": 400, "times": 100}
    fleet.fault(**refusal, detail=PROSE, name_contains="slot-01")
    fleet.fault(**refusal, name_contains="slot-02")  # no capacity, in the service's own words
    done = fleet.stage.podfleet("up", STACK)
    assert done.returncode == 1
    lines = last_lines(done.stderr)
    assert any("slot-01-" in line and PROSE in line for line in lines), lines
    assert any("slot-02-" in line and "no longer any instances available" in line for line in lines), lines
    assert len(lines) == 2
    assert fleet.pods() == []
    posts = Counter(slot_of(post) for post in requests(fleet, "pods.create", since))
    assert posts == {"slot-01": 2, "slot-02": 2 * ROUNDS}, "only a lack of capacity is asked again"


def test_a_rate_limit_that_lasts_too_long_is_told_and_not_tried_again(fleet: Fleet) -> None:
    """The limit is the account's: who else would call meets it, too."""
    fleet.config(bootstrap="none", pods=2)
    since = fleet.last_event()
    refusal = {"op": "pods.create", "phase": "before", "action": "status", "times": 100}
    fleet.fault(**refusal, status=429, headers={"Retry-After": "900"})
    done = fleet.stage.podfleet("up", STACK)
    assert done.returncode == 1
    lines = last_lines(done.stderr)
    assert any("429" in line and "asks to wait 900 s more, which is too long" in line for line in lines), lines
    assert fleet.pods() == []
    posts = Counter(slot_of(post) for post in requests(fleet, "pods.create", since))
    assert posts.total() <= 2
    assert set(posts.values()) == {1}


def test_a_list_that_fails_proves_no_absence(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=1)
    fleet.up()
    pod_id = fleet.pod("slot-01")["id"]
    since = fleet.last_event()
    asked = fleet.fault(op="pods.delete", phase="after", action="hold")
    destroy = fleet.start(*DESTROY)
    try:
        fleet.wait_for_hit(asked)
        fleet.fault(op="pods.list", phase="before", action="status", status=500, times=100)
        fleet.release(asked)
        assert destroy.wait(120) != 0
    finally:
        fleet.release()
        destroy.kill()
    shown = (fleet.stage.logs / "background.log").read_text()
    assert "RunPod says 500" in shown
    known = {found.get("id") for found in resources(fleet)}
    assert pod_id in known, "an unproven end is not forgotten"
    fleet.destroy()
    assert [event["pod_id"] for event in fleet.events(since) if event["kind"] == "pod.ended"] == [pod_id]


def test_a_second_update_is_one_line_and_disturbs_nothing(fleet: Fleet) -> None:
    fleet.config(bootstrap="none", pods=1)
    since = fleet.last_event()
    held = fleet.fault(op="pods.create", phase="after", action="hold")
    first = fleet.start(*UP)
    try:
        fleet.wait_for_hit(held)
        text = fleet.stage.stack_file.read_text()
        for words in (("up", STACK), ("scale", STACK, "3"), ("destroy", STACK)):
            done = fleet.stage.podfleet(*words)
            assert done.returncode == 1
            (line,) = last_lines(done.stderr)
            assert line.startswith(f"another update of this stack is running (pid {first.pid} on ")
            assert fleet.stage.stack_file.read_text() == text
        plain = fleet.stage.pulumi(*UP)
        assert plain.returncode != 0
        assert "the stack is currently locked by 1 lock(s)" in plain.stdout
    finally:
        fleet.release()
        assert first.wait(120) == 0
    assert fleet.slots() == ["slot-01"]
    assert len(requests(fleet, "pods.create", since)) == 1


def test_an_impostor_is_told_nothing_and_ended_all_the_same(fleet: Fleet, wait_for: Callable[..., None]) -> None:
    fleet.emulate(ssh_impostor_names=["slot-01"])
    fleet.config(pods=2)
    since = fleet.last_event()
    try:
        shown = fleet.up(rc=1)
        assert "ssh: host key mismatch" in shown
        impostor, honest = fleet.pod("slot-01"), fleet.pod("slot-02")
        wait_for(lambda: {job["status"] for job in fleet.jobs()} <= {"completed"}, "the honest pod works off the queue")
        address = impostor["ssh"]["direct"]
        key = asyncio.run(asyncssh.get_server_host_key(address["host"], address["port"]))
        assert key is not None
        reachable = next(found for found in resources(fleet) if found.get("id") == f"reachable-{impostor['id']}")
        assert reachable["outputs"]["hostKey"] not in key.export_public_key().decode()
        start = fleet.last_event()
        shown = fleet.destroy()
    finally:
        fleet.emulate(ssh_impostor_names=[])
    commands = Counter(event["pod_id"] for event in fleet.events(since) if event["kind"] == "ssh.exec")
    assert commands.keys() == {honest["id"]}, "nothing ran on the impostor, neither step nor drain"
    assert "Host key is not trusted" in shown
    events = fleet.events(start)
    ended = {event["pod_id"]: event["ts"] for event in events if event["kind"] == "pod.ended"}
    assert ended.keys() == {impostor["id"], honest["id"]}
    assert ended[impostor["id"]] - events[0]["ts"] < DRAIN_DEADLINE_S
