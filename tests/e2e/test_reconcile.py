"""The reconciler with the real engine: dry run, hold, up, idle pods first, and somebody else who was faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from tests.e2e.audio import silence
from tests.e2e.fleet import Fleet, slot_of
from tests.e2e.untouched import untouched
from tools.stage import STACK

from podfleet.config import PodfleetConfig
from podfleet.deploy import Deployment
from podfleet.errors import StaleGeneration
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.reconciler import tick
from podfleet.signals.queue import Node, QueueSignal
from podfleet.workspace import Workspace, complete

pytestmark = pytest.mark.engine
ONCE = ("reconcile", STACK, "--once")
PRICE = (
    "price: $0.00/h now → $0.50/h then (0 → 2 pods, new ones on NVIDIA RTX A4000 SECURE at $0.25/h "
    "(offers: $0.25 to $0.27/h), $0.083 per hour of audio (the engine does not use the GPU); "
    "at most $1.62/h with 6 pods)"
)
DRY = ("reconcile", STACK, "--dry-run")
NOTE = "# a person's note"
WORK_S = 300  # longer than a second pod and a tick of the reconciler take on a busy machine; nobody waits for it


@pytest.fixture
def waiting(fleet: Fleet) -> Iterator[Fleet]:
    """No pod; whatever an earlier test queued is worked off."""
    fleet.config(bootstrap="none", jobsPerPod=4, enabled=None)
    yield fleet
    fleet.config(enabled=None)


def sizes(fleet: Fleet) -> tuple[object, object]:
    """`pods` and `slots` as they stand in the stack file."""
    config = yaml.safe_load(fleet.stage.stack_file.read_text())["config"]
    return int(config["podfleet:pods"]), config.get("podfleet:slots")


def test_it_says_what_it_would_do_holds_when_it_must_and_then_does_it(
    waiting: Fleet, wait_for: Callable[..., None]
) -> None:
    fleet = waiting
    for number in range(5):
        fleet.add_job(silence(), f"job {number}")
    with untouched(fleet):
        dry = fleet.stage.podfleet(*DRY)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines() == [
        "0 → 2 pods: 5 jobs waiting and 0 running, one pod per 4",
        PRICE,
    ]

    fleet.config(enabled="false")
    with untouched(fleet):
        paused = fleet.stage.podfleet(*ONCE)
    assert (paused.returncode, paused.stdout) == (0, "held at 0: podfleet:enabled is false\n")
    fleet.config(enabled=None)

    fleet.stage.stop_queue()
    text = fleet.stage.stack_file.read_text()
    try:
        held = fleet.stage.podfleet(*ONCE)
    finally:
        fleet.stage.start_queue()
    assert held.returncode == 1
    (line,) = [line for line in held.stderr.splitlines() if line.startswith("podfleet: ")]
    assert line.startswith(f"podfleet: held at 0 pods, nothing was changed: {fleet.stage.queue_url}/api/queue: ")
    assert fleet.stage.stack_file.read_text() == text
    assert fleet.pods() == []

    fleet.stage.stack_file.write_text(
        f"{NOTE} at the top\n" + text.replace("podfleet:engine: scripted", f"podfleet:engine: scripted {NOTE}")
    )
    done = fleet.stage.podfleet(*ONCE)
    assert done.returncode == 0, done.stderr
    assert fleet.slots() == ["slot-01", "slot-02"]
    assert sizes(fleet) == (2, ["slot-01", "slot-02"])
    assert fleet.stage.stack_file.read_text().count(NOTE) == 2
    assert fleet.stage.podfleet("why", STACK).stdout == done.stdout
    fleet.up("--expect-no-changes")
    wait_for(lambda: {job["status"] for job in fleet.jobs()} == {"completed"}, "the jobs are done")


def test_only_idle_pods_go_and_they_are_drained_first(fleet: Fleet, wait_for: Callable[..., None]) -> None:
    fleet.config(pods=1, slots='["slot-02"]', model="speed=1", drainDeadlineSeconds=3)
    fleet.up()
    wait_for(lambda: len(_registered(fleet)) == 1, "slot-02 has registered")
    job = fleet.add_job(silence(WORK_S), "long")
    wait_for(lambda: _status(fleet, job) == "running", "slot-02 works")
    fleet.config(pods=2, slots='["slot-01", "slot-02"]')
    fleet.up()
    wait_for(lambda: len(_registered(fleet)) == 2, "slot-01 has registered")
    since = fleet.last_event()
    idle = fleet.pod("slot-01")["id"]
    done = fleet.stage.podfleet(*ONCE)
    assert done.returncode == 0, done.stderr
    assert fleet.slots() == ["slot-02"], "the higher number stays: it is at work"
    assert sizes(fleet) == (1, ["slot-02"])
    told = [
        (event["kind"], event["pod_id"]) for event in fleet.events(since) if event["kind"] in ("ssh.exec", "pod.ended")
    ]
    assert told == [("ssh.exec", idle), ("pod.ended", idle)]
    (row,) = [row for row in fleet.jobs() if row["id"] == job]
    assert (row["status"], row["owner_name"]) == ("running", fleet.pod("slot-02")["name"]), "it was not disturbed"
    fleet.config(drainDeadlineSeconds=20)


def test_who_looked_before_somebody_else_changed_the_fleet_changes_nothing(
    waiting: Fleet, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = waiting
    fleet.config(pods=2)
    fleet.up()
    wait_for(lambda: len(_registered(fleet)) == 2, "both pods have registered")
    wait_for(lambda: {job["status"] for job in fleet.jobs()} <= {"completed"}, "both are idle: the tick wants none")
    workspace = Workspace(fleet.stage.project, STACK)
    config = workspace.config()
    env = complete(workspace, fleet.stage.env)
    monkeypatch.setenv("PATH", env["PATH"])  # where the Automation API looks for the engine
    deployment = Deployment(workspace, env, show=lambda _: None)
    cloud = RunpodClient(Access(fleet.stage.cloud_url, env["RUNPOD_API_KEY"]))
    with OvertakenQueue(config, fleet) as queue, pytest.raises(StaleGeneration):
        tick(config, prefix=workspace.prefix, deployment=deployment, cloud=cloud, queue=queue, now_s=time.time())
    cloud.close()
    assert fleet.slots() == ["slot-01", "slot-02", "slot-03"], "as the other one wants it"
    assert sizes(fleet) == (3, None), "and so does the file"
    fleet.up("--expect-no-changes")


class OvertakenQueue(QueueSignal):
    """The real queue; while it is being read, somebody else brings the fleet to three pods."""

    def __init__(self, config: PodfleetConfig, fleet: Fleet) -> None:
        super().__init__(config.queue_url)
        self._fleet = fleet

    def nodes(self) -> dict[str, Node]:
        found = super().nodes()
        self._fleet.config(pods=3)
        self._fleet.up()
        return found


def _registered(fleet: Fleet) -> set[str]:
    """Slots whose pod is known to the queue and online."""
    live = {pod["name"] for pod in fleet.pods()}
    nodes = fleet.stage.queue("/api/nodes")["nodes"]
    return {slot_of(node) for node in nodes if node["name"] in live and node["status"] != "offline"}


def _status(fleet: Fleet, job: int) -> str:
    return next(str(row["status"]) for row in fleet.jobs() if row["id"] == job)
