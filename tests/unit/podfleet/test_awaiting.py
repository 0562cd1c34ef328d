"""`up --wait` in a world of its own: pods that boot by a script, an engine that rents them, a clock that tests move."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from podfleet.avoid import AvoidList, BadHost, told
from podfleet.awaiting import Outside, UpAndWait
from podfleet.config import PodfleetConfig
from podfleet.errors import ApiUnavailable, EngineError, NotReady, SignalError, StackLocked
from podfleet.placement import Avoid
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.rules import read_avoid
from podfleet.providers.runpod.wire import LogLine, PodView
from podfleet.signals.queue import Node
from podfleet.spans import span

PREFIX, UID = "podfleet-local-", "local-00000001"
VALUES = {"uid": UID, "image": "i:1", "gpuTypes": ["NVIDIA L4"], "queueUrl": "http://q", "bootstrap": "none"}
OLD_DRIVER = "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8"
EPOCH_S = 1_800_000_000.0
READY = "podfleet-node ready node=7 metrics=- engine=scripted"


def config(**more: object) -> PodfleetConfig:
    return PodfleetConfig.model_validate({**VALUES, "pods": 3, "maxPods": 6, **more})


class Clock:
    """Sleeping moves it; `at` does things when a moment is reached."""

    def __init__(self) -> None:
        self.t = 0.0
        self.at: list[tuple[float, Callable[[], None]]] = []

    def now_s(self) -> float:
        return EPOCH_S + self.t

    def monotonic_s(self) -> float:
        self.t += 1e-6
        return self.t

    def sleep(self, seconds: float) -> None:
        self.t += max(0.0, seconds)
        for moment, act in [due for due in self.at if due[0] <= self.t]:
            self.at.remove((moment, act))
            act()


@dataclass
class Boot:
    """How one pod boots: a status, with a container or without, and whether its node reports after `after_s`."""

    status: str = "RUNNING"
    container: bool = True
    reports: bool = True
    after_s: float = 40.0
    system: Sequence[str] = ()
    node_log: Sequence[str] = ()
    place: str = "EU-RO-1"


@dataclass
class World:
    """Cloud, queue and engine in one. `boots` says how the next pods of a slot boot; without a word: well."""

    clock: Clock = field(default_factory=Clock)
    boots: dict[str, list[Boot]] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    booting: dict[str, tuple[float, Boot]] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    queue_down: bool = False
    beats_known: bool = True
    offline: set[str] = field(default_factory=set)
    told: dict[str, str] = field(default_factory=dict)
    ups: list[bool] = field(default_factory=list)
    up_errors: list[Exception | None] = field(default_factory=list)
    up_takes_s: float = 0.0
    list_errors: list[Exception] = field(default_factory=list)
    lists: int = 0
    reads: list[tuple[float, str, str]] = field(default_factory=list)
    wanted: PodfleetConfig = field(default_factory=config)

    def rent(self, slot: str, boot: Boot) -> None:
        pod_id = f"pod{len(self.booting) + 1}"
        name = remote_name(PREFIX, slot, UID, pod_spec(self.wanted))
        view = PodView(pod_id, name, "PROVISIONING", uid=UID, gpu="NVIDIA L4", cloud="SECURE", cost_usd_per_hr=0.5)
        self.pods[pod_id] = replace(
            view, data_center_id=boot.place, created_at_s=self.clock.now_s(), has_runtime=False, cuda_version="12.8"
        )
        self.booting[pod_id] = (self.clock.t, boot)
        self.state[slot] = pod_id

    # The engine

    def tell(self, variables: Mapping[str, str]) -> None:
        self.told.update(variables)

    def up(self, *, refresh: bool) -> None:
        self.ups.append(refresh)
        for slot in self.wanted.wanted_slots:
            if (self.state.get(slot) not in self.pods and refresh) or slot not in self.state:
                queued = self.boots.get(slot) or [Boot()]
                self.rent(slot, queued.pop(0))
        self.clock.sleep(self.up_takes_s)
        error = self.up_errors.pop(0) if self.up_errors else None
        if error:
            raise error

    def pod_ids(self) -> dict[str, str]:
        return dict(self.state)

    # The cloud

    def list_pods(self) -> tuple[PodView, ...]:
        self.lists += 1
        if self.list_errors:
            raise self.list_errors.pop(0)
        return tuple(map(self._now, self.pods.values()))

    def _now(self, pod: PodView) -> PodView:
        since_s, boot = self.booting[pod.id]
        age_s = self.clock.t - since_s
        if age_s < 10:
            return pod
        return replace(pod, status=boot.status, has_runtime=boot.container)

    def pod_logs(self, pod_id: str, *, source: str, tail: int, wait_s: float) -> list[LogLine]:
        self.reads.append((self.clock.t, pod_id, source))
        since_s, boot = self.booting[pod_id]
        lines = list(boot.system if source == "system" else boot.node_log)
        if source == "container" and boot.container and boot.reports and self.clock.t - since_s >= boot.after_s:
            lines.append(READY)
        return [LogLine("t", source, line) for line in lines]

    def delete_pod(self, pod_id: str) -> bool:
        return self.pods.pop(pod_id, None) is not None

    # The queue

    def nodes(self) -> dict[str, Node]:
        if self.queue_down:
            raise SignalError("http://q/api/nodes: refused")
        found = {}
        for pod_id, (since_s, boot) in self.booting.items():
            at_s = since_s + boot.after_s
            if boot.reports and boot.container and self.clock.t >= at_s and (pod := self.pods.get(pod_id)):
                beat_s = EPOCH_S + self.clock.t if self.beats_known else None
                found[pod.name] = Node(pod.name, pod_id not in self.offline, True, beat_s)
        return found


@dataclass
class Run:
    """One run with what it said."""

    world: World
    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def avoid(self) -> AvoidList:
        return AvoidList(self.folder / "avoid" / "local.json")

    def go(self) -> str:
        outside = Outside(self.world, self.world, self.world, self.avoid, self.world.clock, self.lines.append)
        return UpAndWait(lambda: self.world.wanted, stack="local", prefix=PREFIX, outside=outside).run()

    def fails(self) -> str:
        with pytest.raises(NotReady) as caught:
            self.go()
        return str(caught.value)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    return Run(world, tmp_path)


def test_ready_is_the_first_heartbeat(world: World, run: Run) -> None:
    assert re.fullmatch("3 pods ready in 4[0-2] s", run.go())
    assert world.ups == [True]
    assert world.reads == [], "the queue knows them all: no log is read"
    assert [line for line in run.lines if "ready after" in line] == [f"slot-0{n}: ready after 41 s" for n in (1, 2, 3)]
    assert run.lines[0] == "slot-01: NVIDIA L4 in EU-RO-1, $0.50/h"


def test_who_cannot_reach_the_queue_reads_the_ready_line_in_the_log(world: World, run: Run) -> None:
    world.queue_down = True
    assert run.go().startswith("3 pods ready in ")
    assert sum("queue does not answer" in line for line in run.lines) == 1
    per_pod = [at_s for at_s, pod, _ in world.reads if pod == "pod1"]
    assert len(per_pod) <= 4, "not at each poll"


def test_a_fleet_that_is_there_already_is_ready_at_once(world: World, run: Run) -> None:
    for slot in world.wanted.wanted_slots:
        world.rent(slot, Boot())
    world.clock.sleep(3600)
    assert re.fullmatch("3 pods ready in [01] s", run.go())
    assert run.lines[0] == "slot-01: ready, NVIDIA L4 in EU-RO-1, $0.50/h"


def test_no_pods_wanted_is_nothing_to_wait_for(world: World, run: Run) -> None:
    world.wanted = config(pods=0)
    assert run.go() == "0 pods ready in 0 s"


@pytest.mark.parametrize(
    ("boot", "cause", "said", "within_s"),
    [
        (Boot(container=False, system=[OLD_DRIVER]), "driver too old", OLD_DRIVER, 60),
        (Boot(container=False), "no container", "RUNNING without a container for 30", 320),
        (Boot("ERROR", container=False, system=["host failure"]), "not alive", "its system log ends: host failure", 30),
        (Boot("EXITED", container=False, system=["Exited by Runpod"]), "not alive", "Exited by Runpod", 30),
        (
            Boot(reports=False, node_log=["podfleet-node phase smoke scripted"]),
            "node never reported",
            "(last phase: smoke scripted)",
            340,
        ),
    ],
)
def test_a_pod_that_fails_is_ended_and_another_one_takes_its_place(
    world: World, run: Run, boot: Boot, cause: str, said: str, within_s: float
) -> None:
    world.boots["slot-02"] = [boot]
    assert run.go().endswith(f" (1 replaced: {cause} on NVIDIA L4 in EU-RO-1)")
    (line,) = [line for line in run.lines if line.endswith("; ended")]
    assert line.startswith(f"slot-02: NVIDIA L4 in EU-RO-1: {cause}: ")
    assert said in line
    assert world.ups == [True, True], "up again, and each time after a look"
    assert world.clock.t < within_s + 60
    assert len(world.pods) == 3
    assert "pod2" not in world.pods
    noted = [(host.gpu, host.data_center_id, host.cuda_version) for host in run.avoid.hosts(now_s=world.clock.now_s())]
    driver = "12.8" if cause.startswith("driver") else ""
    assert noted == ([("NVIDIA L4", "EU-RO-1", driver)] if "node" not in cause else [])


def test_the_next_up_is_told_which_hosts_to_pass_over(world: World, run: Run) -> None:
    world.boots["slot-01"] = [Boot("ERROR")]
    run.go()
    row = {"gpu": "NVIDIA L4", "cloud": "SECURE", "dataCenterId": "EU-RO-1"}
    assert json.loads(world.told["PODFLEET_AVOID"]) == [row]
    assert world.told["PODFLEET_BOOT_DEADLINE_S"] == "300.0"


def test_the_budget_ends_and_what_is_left_is_told_with_its_price(world: World, run: Run) -> None:
    world.wanted = config(replacements=2)
    world.boots["slot-02"] = [Boot("ERROR", system=["no space"]) for _ in range(3)]
    said = run.fails()
    first, reason, budget, left = said.splitlines()
    assert first.startswith("2 of 3 pods ready after ")
    assert first.endswith("(2 replaced: 2 × not alive on NVIDIA L4 in EU-RO-1)")
    assert reason.startswith("slot-02: NVIDIA L4 in EU-RO-1: not alive: it is ERROR; its system log ends: no space")
    assert budget == "no replacement is left (podfleet:replacements is 2)"
    assert left.startswith("2 pods are there, $1.00/h: `podfleet status local` shows them")
    assert len(world.booting) == 5, "three wanted, two replacements, no more"


def test_more_failures_than_replacements_are_not_replaced_by_some(world: World, run: Run) -> None:
    world.wanted = config(replacements=1)
    for slot in ("slot-01", "slot-02"):
        world.boots[slot] = [Boot("ERROR")]
    said = run.fails()
    assert "1 of 3 pods ready" in said
    assert "2 failed and 1 may be replaced: none was (podfleet:replacements is 1)" in said
    assert len(world.booting) == 3
    assert [pod.status for pod in world.list_pods()] == ["RUNNING"]


def test_a_pod_that_vanishes_before_it_is_ready_is_replaced(world: World, run: Run) -> None:
    world.clock.at.append((20.0, lambda: world.pods.pop("pod3") and None))
    assert run.go().endswith("(1 replaced: gone)")


def test_a_pod_that_was_ready_and_ended_itself_counts(world: World, run: Run) -> None:
    world.boots["slot-02"] = [Boot(after_s=90.0)]
    world.clock.at.append((60.0, lambda: world.pods.pop("pod1") and None))
    assert run.go().startswith("3 pods ready in 1 min 3")
    assert world.ups == [True]


def test_a_node_that_may_still_work_is_left_alone(world: World, run: Run) -> None:
    world.wanted = config(pods=1)
    world.rent("slot-01", Boot(after_s=0.0))
    world.clock.sleep(7200)
    world.offline.add("pod1")
    said = run.fails()
    assert "the queue has heard its node and does not hear it now" in said
    assert list(world.pods) == ["pod1"]


def test_a_container_that_restarts_in_an_old_pod_is_no_reason_to_end_it(world: World, run: Run) -> None:
    world.wanted = config(pods=1)
    boot = Boot(container=False, after_s=0.0)
    world.rent("slot-01", boot)
    world.clock.sleep(7200)
    world.clock.at.append((7260.0, lambda: setattr(boot, "container", True)))
    assert run.go().startswith("1 pod ready in 1 min ")
    assert world.ups == [True]


def test_the_time_that_an_up_takes_does_not_count_for_a_pod_that_was_there_before(world: World, run: Run) -> None:
    world.wanted = config(pods=1)
    boot = Boot(container=False, after_s=0.0)
    world.rent("slot-01", boot)
    world.clock.sleep(7200)
    world.up_takes_s = 600.0
    world.clock.at.append((7830.0, lambda: setattr(boot, "container", True)))
    assert run.go().startswith("1 pod ready in 10 min ")
    assert world.ups == [True]


def test_who_is_late_with_many_is_not_given_up_unread(world: World, run: Run) -> None:
    world.wanted = config(pods=9, maxPods=9)
    world.nodes = dict  # type: ignore[method-assign]
    assert run.go().startswith("9 pods ready in 5 min ")
    per_look: dict[float, int] = {}
    for at_s, _, _ in world.reads:
        per_look[at_s] = per_look.get(at_s, 0) + 1
    assert max(per_look.values()) <= 6


def test_heartbeats_of_the_pod_before_do_not_count(world: World, run: Run) -> None:
    world.wanted = config(pods=1)
    name = remote_name(PREFIX, "slot-01", UID, pod_spec(world.wanted))
    beat_s = EPOCH_S - 5
    world.nodes = lambda: {name: Node(name, online=True, idle=True, beat_s=beat_s)}  # type: ignore[method-assign]
    world.boots["slot-01"] = [Boot(after_s=35.0)]
    assert run.go().startswith("1 pod ready in 5"), "by the line in its log"


def test_a_queue_that_does_not_date_its_heartbeats_is_not_believed_at_first(world: World, run: Run) -> None:
    world.wanted = config(pods=1)
    world.boots["slot-01"] = [Boot("RUNNING", reports=False), Boot()]
    name = remote_name(PREFIX, "slot-01", UID, pod_spec(world.wanted))
    world.nodes = lambda: {name: Node(name, online=world.clock.t < 80, idle=True)}  # type: ignore[method-assign]
    assert run.go().endswith("(1 replaced: node never reported on NVIDIA L4 in EU-RO-1)")


def test_an_up_that_fails_for_a_pod_is_gone_on_with(world: World, run: Run) -> None:
    world.wanted = config(bootstrap="none", pods=2)
    world.boots["slot-02"] = [Boot(reports=False)]
    late = "podfleet:index:FleetPod slot-02: pod pod2 could not be reached within 300 s (RUNNING); it still costs money"
    world.up_takes_s = 300.0
    world.up_errors = [EngineError(late, pod_ids=["pod2"])]
    assert "(1 replaced: no SSH on NVIDIA L4 in EU-RO-1)" in run.go()
    assert any("could not be reached within 300 s" in line for line in run.lines)
    assert world.ups == [True, True]


def test_an_up_that_fails_for_another_reason_is_told_and_not_repeated(world: World, run: Run) -> None:
    world.up_errors = [EngineError("verify: no such engine")]
    lines = run.fails().splitlines()
    assert lines[0].startswith("0 of 3 pods ready")
    assert lines[1] == "verify: no such engine"
    assert lines[2].startswith("3 pods are there, $1.50/h")
    assert world.ups == [True]


def test_a_locked_stack_is_no_reason_to_wait(world: World, run: Run) -> None:
    world.up_errors = [StackLocked("another update is running")]
    with pytest.raises(StackLocked):
        run.go()


def test_a_list_that_fails_now_and_then_is_asked_for_again(world: World, run: Run) -> None:
    world.clock.at.append((15.0, lambda: world.list_errors.append(ApiUnavailable("RunPod says 502: x"))))
    assert run.go().startswith("3 pods ready")
    assert any("the cloud's list failed" in line for line in run.lines)


def test_a_cloud_that_is_silent_for_good_is_given_up(world: World, run: Run) -> None:
    world.clock.at.append((15.0, lambda: world.list_errors.extend([ApiUnavailable("RunPod says 502: x")] * 1000)))
    with pytest.raises(ApiUnavailable):
        run.go()
    assert world.clock.t < 500


def test_an_interrupt_leaves_the_fleet_and_says_so(world: World, run: Run) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    world.clock.at.append((25.0, interrupt))
    with pytest.raises(KeyboardInterrupt):
        run.go()
    assert run.lines[-1].startswith(
        "interrupted: the fleet is as it is; 3 pods are there, $1.50/h: `podfleet status local`"
    )
    assert len(world.pods) == 3


def test_one_list_per_poll_and_few_logs(world: World, run: Run) -> None:
    world.wanted = config(pods=6)
    world.queue_down = True
    run.go()
    assert world.lists <= world.clock.t / 10 + 3
    per_minute = len(world.reads) / (world.clock.t / 60)
    assert per_minute <= 36, "six logs per look, a look per ten seconds"


def test_hosts_are_forgotten_after_a_day(tmp_path: Path) -> None:
    found = AvoidList(tmp_path / "avoid" / "local.json")
    assert found.hosts(now_s=0) == ()
    found.add(BadHost("A", "SECURE", "X", "r", at_s=0.0))
    found.add(BadHost("B", "SECURE", "X", "r", at_s=80_000.0, cuda_version="12.4"))
    found.add(BadHost("B", "SECURE", "X", "again", at_s=81_000.0, cuda_version="12.4"))
    assert [host.reason for host in found.hosts(now_s=81_000.0)] == ["r", "again"]
    assert [host.gpu for host in found.hosts(now_s=90_000.0)] == ["B"]
    assert read_avoid(told(found.hosts(now_s=90_000.0))) == (Avoid("B", "SECURE", "X", "12.4"),)
    found.file.write_text("[{")
    assert found.hosts(now_s=0) == ()
    assert told(()) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (72, "1 min 12 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
