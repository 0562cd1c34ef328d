"""Told to stop: waits end, what was begun is finished; and reading a pod back for an import."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
import runpod_fakes
from hypothesis import given
from hypothesis import strategies as st
from runpod_fakes import UID, FakeClock, FakeRunpod, client_of, lost, runtime_of

from podfleet.errors import Interrupted, OtherFleetFound
from podfleet.providers.runpod import census, clock, core, drain, ending, engine, pacing
from podfleet.providers.runpod.census import Snapshot
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.engine import EngineWatch
from podfleet.providers.runpod.importing import imported
from podfleet.providers.runpod.runtime import build
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.providers.runpod.ssh_port import answers
from podfleet.providers.runpod.stopping import Stopping
from podfleet.providers.runpod.wire import PodView, SshAddress

SPEC = replace(runpod_fakes.SPEC, min_cuda_version="", ports=(), env={})


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Stopping:
    """A sign of this test's own in the place of the process's."""
    found = Stopping()
    for module in (census, clock, core, drain, ending, engine, pacing):
        monkeypatch.setattr(module, "STOPPING", found)
    return found


def test_a_wait_ends_as_soon_as_it_is_told_to(stopping: Stopping) -> None:
    threading.Timer(0.05, lambda: stopping.ask("Ctrl-C")).start()
    started_s = time.monotonic()
    with pytest.raises(Interrupted, match=r"interrupted \(Ctrl-C\); run it again"):
        RealClock().sleep(30)
    assert time.monotonic() - started_s < 5


def test_what_has_to_be_finished_waits_on_in_this_thread_and_its_helpers(stopping: Stopping) -> None:
    stopping.ask("Ctrl-C")
    stopping.ask("another reason")
    with stopping.finishing(), ThreadPoolExecutor(1) as helper:
        RealClock().sleep(0.001)
        assert helper.submit(stopping.passed_on(lambda: stopping.interrupts)).result() is False
        assert helper.submit(lambda: stopping.interrupts).result() is True
    with pytest.raises(Interrupted, match=r"Ctrl-C.*: not done: renting x"):
        stopping.check("renting x")


def test_an_engine_that_lives_asks_for_nothing_more_once_it_has_cancelled(stopping: Stopping) -> None:
    watch = EngineWatch(lambda: (1,), None)
    watch.require("renting x")
    stopping.ask("the update was cancelled")
    with pytest.raises(Interrupted):
        watch.require("renting x")
    assert watch.alive()


class ClockThatStops(FakeClock):
    """As the real one: a sleep raises in a process that was told to stop."""

    def __init__(self, stopping: Stopping) -> None:
        super().__init__()
        self._stopping = stopping

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._stopping.check()


def test_ends_that_were_asked_for_are_proven_and_others_are_not_begun(stopping: Stopping) -> None:
    fake, fake_clock = FakeRunpod(), ClockThatStops(stopping)
    pod_id = fake.add("podfleet-dev-slot-01-0badcafe")
    settings = ProviderSettings(api_key="k", base_url="http://127.0.0.1:9")
    runtime = build(settings, client_of(fake, fake_clock), EngineWatch(lambda: (1,), None), fake_clock)

    def end_and_stop(request):  # type: ignore[no-untyped-def]
        stopping.ask("Ctrl-C")
        return fake.do_delete_pod(request)

    fake.next("delete_pod", end_and_stop)
    runtime.pods.delete(pod_id, uid=UID)
    assert fake.pods == {}
    other = fake.add("podfleet-dev-slot-02-0badcafe")
    with pytest.raises(Interrupted):
        runtime.pods.delete(other, uid=UID)
    assert list(fake.pods) == [other]


def test_many_pods_are_asked_to_end_at_the_same_time_and_one_failure_holds_up_no_other() -> None:
    fake, together = FakeRunpod(), threading.Barrier(8, timeout=10)
    ids = [fake.add(f"podfleet-dev-slot-{number:02d}-0badcafe") for number in range(8)]

    def ended(request):  # type: ignore[no-untyped-def]
        together.wait()
        return fake.do_delete_pod(request)

    fake.next("get_pod", fake.do_get_pod)
    runtime = runtime_of(fake, FakeClock())
    runtime.census.now()
    fake.next("delete_pod", *[ended] * 8)
    runtime.ending.end(runtime.census.recent().pods, why="a test")
    assert sorted(fake.deletes()) == sorted(ids)
    assert fake.lists() <= 4


@given(st.lists(st.tuples(st.floats(0.1, 9), st.sets(st.sampled_from("abc"))), max_size=12))
def test_gone_is_what_all_lists_of_a_whole_interval_lack(looks: list[tuple[float, set[str]]]) -> None:
    proof, now_s, gone = ending._Proof({"a", "b"}, 10.0), 0.0, set()
    lists: list[tuple[float, set[str]]] = []
    for later_s, present in looks:
        now_s += later_s
        lists.append((now_s, present))
        found = proof.see(Snapshot(now_s, tuple(PodView(name, "n", "RUNNING") for name in present - gone)))
        for name in found:
            lacking = list(itertools.takewhile(lambda each: name not in each[1], reversed(lists)))  # noqa: B023
            assert now_s - lacking[-1][0] >= 10
        gone |= found
        for name in proof.left - proof.listed:
            assert name not in present
            assert proof.next_look_s() >= now_s


def test_pods_that_vanish_one_after_the_other_are_proven_an_interval_after_the_last(stopping: Stopping) -> None:
    fake, fake_clock = FakeRunpod(), FakeClock()
    ids = [fake.add(f"podfleet-dev-slot-0{number}-0badcafe") for number in range(3)]
    fake.next("delete_pod", *[lambda _: httpx.Response(204)] * 3)
    runtime = runtime_of(fake, fake_clock)
    start_s = fake_clock.t
    for number, pod_id in enumerate(ids):
        fake_clock.at.append((start_s + 1.5 * number, lambda pod_id=pod_id: fake.pods.pop(pod_id)))  # type: ignore[misc]
    runtime.ending.end([], ids=ids, why="a test")
    assert fake_clock.t - start_s <= 3 + 10 + 2
    assert fake.lists() <= 5


def test_what_guard_has_proven_gone_costs_its_resource_no_call() -> None:
    fake, fake_clock = FakeRunpod(), FakeClock()
    runtime = runtime_of(fake, fake_clock)
    pod_id = fake.add("podfleet-dev-slot-01-0badcafe")
    runtime.guard.delete(UID, "podfleet-dev-")
    asked, ended_s = len(fake.requests), fake_clock.t
    runtime.pods.delete(pod_id, uid=UID)
    assert len(fake.requests) == asked
    assert fake_clock.t - ended_s < 1


POD = PodView(
    id="p1",
    name="podfleet-dev-slot-01-0badcafe",
    status="RUNNING",
    uid=UID,
    spec_hash="0badcafe",
    slot="slot-01",
    gpu="NVIDIA L4",
    cloud="SECURE",
    data_center_id="EU-RO-1",
    image="img:1",
    disk_gb=20,
    ports=("22/tcp",),
    env=(("A", "b"), ("PODFLEET_EXPIRES_AT_S", "1")),
)


def test_a_pod_of_ours_shows_what_it_was_rented_with() -> None:
    assert imported(POD, uid=UID) == {
        "name": POD.name,
        "uid": UID,
        "slot": "slot-01",
        "specHash": "0badcafe",
        "image": "img:1",
        "gpuTypes": ["NVIDIA L4"],
        "cloud": "SECURE",
        "dataCenterIds": ["EU-RO-1"],
        "diskGb": 20,
        "ports": ["22/tcp"],
        "env": {"A": "b"},
    }


@pytest.mark.parametrize(
    "other",
    [
        {"uid": "prod-00000002"},
        {"uid": ""},
        {"slot": ""},
        {"spec_hash": ""},
        {"name": "podfleet-dev-slot-02-0badcafe"},
        {"name": "podfleet-dev-slot-01-deadbeef"},
    ],
)
def test_a_pod_that_is_not_the_stacks_own_is_not_imported(other: dict[str, str]) -> None:
    with pytest.raises(OtherFleetFound, match="not imported"):
        imported(replace(POD, **other), uid=UID)  # type: ignore[arg-type]


def test_without_a_uid_nothing_is_imported() -> None:
    with pytest.raises(OtherFleetFound, match="podfleet:uid is not set"):
        imported(replace(POD, uid=""), uid="")


@pytest.mark.parametrize(("said", "is_ssh"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.1 400", False), (b"SS", False)])
def test_a_port_counts_as_ssh_when_it_says_so(said: bytes, is_ssh: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as there:

        def say() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)

        answered = there.submit(say)
        assert answers(SshAddress("127.0.0.1", server.getsockname()[1], "root")) is is_ssh
        answered.result()


def test_nobody_there_is_no_ssh() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not answers(SshAddress("127.0.0.1", port, "root"))


def test_a_create_that_is_interrupted_after_an_unclear_answer_first_looks_what_became_of_it(stopping: Stopping) -> None:
    fake, fake_clock = FakeRunpod(), ClockThatStops(stopping)
    settings = ProviderSettings(api_key="k", base_url="http://127.0.0.1:9", reconcile_s=5.0)
    runtime = build(settings, client_of(fake, fake_clock), EngineWatch(lambda: (1,), None), fake_clock)

    def lost_and_stopped(request):  # type: ignore[no-untyped-def]
        stopping.ask("Ctrl-C")
        return lost(request)

    fake.next("post_pod", lost_and_stopped)
    fake_clock.at.append((fake_clock.t + 12, lambda: fake.add(SPEC.name)))
    assert runtime.pods.create(SPEC).id == "pod0001"
    assert len(fake.posts()) == 1
