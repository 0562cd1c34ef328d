"""Guard, Sweep, census, secrets, waiting: what they end, what they leave alone, and what they refuse."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runpod_fakes import FakeClock, FakeRunpod, lost, problem, runtime_of

from podfleet.config import PodfleetConfig
from podfleet.errors import ConfigError, OtherFleetFound, PodFailed, PodsGone, ProviderError, StaleGeneration
from podfleet.providers.runpod.census import Census, Looks, is_ours
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.engine import EngineWatch
from podfleet.providers.runpod.fleet import Wish, not_wanted_slots, unknown_pods, wish_of, without_hash
from podfleet.providers.runpod.settings import ProviderSettings, access_from, read_settings
from podfleet.providers.runpod.wire import PodView

UID, PREFIX = "dev-00000001", "podfleet-dev-"


def name(slot: int, spec: str = "0badcafe") -> str:
    return f"{PREFIX}slot-{slot:02}-{spec}"


def wish(*names: str) -> Wish:
    return Wish(UID, PREFIX, names)


@pytest.fixture
def fake() -> FakeRunpod:
    return FakeRunpod()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


# Guard


def test_the_first_guard_of_an_empty_account_does_nothing(fake: FakeRunpod, clock: FakeClock) -> None:
    assert runtime_of(fake, clock).guard.create(wish(name(1)), adopt=False)


def test_a_new_guard_stops_at_pods_of_ours_and_lists_them(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(name(1))
    with pytest.raises(OtherFleetFound, match=rf"{name(1)} \({pod_id}, RUNNING\).*podfleet:adopt"):
        runtime_of(fake, clock).guard.create(wish(name(1)), adopt=False)
    assert fake.deletes() == []


def test_an_adopting_guard_keeps_the_wanted_slots(fake: FakeRunpod, clock: FakeClock) -> None:
    kept, other = fake.add(name(1)), fake.add(name(2))
    runtime_of(fake, clock).guard.create(wish(name(1)), adopt=True)
    assert list(fake.pods) == [kept]
    assert other in fake.deletes()


def test_guard_ends_slots_that_are_not_wanted_and_no_pod_of_another_spec(fake: FakeRunpod, clock: FakeClock) -> None:
    old_spec, surplus = fake.add(name(1, "00000000")), fake.add(name(2))
    stranger, foreign = fake.add(name(3), uid="prod-00000002"), fake.add("podfleet-devil-slot-09-0badcafe")
    runtime_of(fake, clock).guard.update(wish(name(1)), generation="g", expected=None)
    assert set(fake.pods) == {old_spec, stranger, foreign}
    assert fake.deletes() == [surplus]


def test_guard_refuses_a_generation_that_is_not_the_states(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.add(name(2))
    with pytest.raises(StaleGeneration, match="nothing was changed"):
        runtime_of(fake, clock).guard.update(wish(name(1)), generation="aaaa", expected="bbbb")
    assert fake.requests == []
    runtime_of(fake, clock).guard.update(wish(name(1)), generation="aaaa", expected="aaaa")
    assert fake.pods == {}


def test_each_update_is_a_new_generation(fake: FakeRunpod, clock: FakeClock) -> None:
    guard = runtime_of(fake, clock).guard
    assert guard.update(wish(), generation="", expected=None) != guard.update(wish(), generation="", expected=None)


def test_guards_end_ends_all_of_ours_and_nothing_else(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.add(name(1))
    fake.add(name(2), status="EXITED")
    stranger = fake.add(name(3), uid="prod-00000002")
    runtime_of(fake, clock).guard.delete(UID, PREFIX)
    assert list(fake.pods) == [stranger]


def test_guards_end_looks_again_after_an_update_that_was_killed(fake: FakeRunpod, clock: FakeClock) -> None:
    """A late pod would hold the volume that is deleted after Guard, and nobody would look for it any more."""
    runtime = runtime_of(fake, clock, reconcile_s=60.0, interrupted_at_s=clock.now_s() - 10)
    started_s = clock.monotonic_s()
    clock.at.append((started_s + 20, lambda: fake.add(name(1))))
    runtime.guard.delete(UID, PREFIX)
    assert fake.pods == {}
    assert len(fake.deletes()) == 1
    assert 50 <= clock.monotonic_s() - started_s < 80


def test_one_delete_that_fails_does_not_spare_the_others(fake: FakeRunpod, clock: FakeClock) -> None:
    first, second = fake.add(name(1)), fake.add(name(2))
    fake.next("delete_pod", lambda _: problem(409, "cluster member"))
    with pytest.raises(ProviderError, match="409"):
        runtime_of(fake, clock).guard.delete(UID, PREFIX)
    assert list(fake.pods) == [first]
    assert second in fake.deletes()


# Sweep


def test_sweep_ends_what_is_neither_wanted_nor_known(fake: FakeRunpod, clock: FakeClock) -> None:
    wanted, known, stray = fake.add(name(1)), fake.add(name(2, "00000000")), fake.add(name(2))
    runtime_of(fake, clock).sweep.sweep(wish(name(1)), pods=[wanted, known])
    assert set(fake.pods) == {wanted, known}
    assert fake.deletes() == [stray]


def test_sweep_alone_after_a_new_image_ends_nothing(fake: FakeRunpod, clock: FakeClock) -> None:
    known = [fake.add(name(1)), fake.add(name(2))]
    runtime_of(fake, clock).sweep.sweep(wish(name(1, "ffffffff"), name(2, "ffffffff")), pods=known)
    assert list(fake.pods) == known


def test_sweep_ends_the_double_that_came_late(fake: FakeRunpod, clock: FakeClock) -> None:
    known, double = fake.add(name(1)), fake.add(name(1))
    runtime_of(fake, clock).sweep.sweep(wish(name(1)), pods=[known])
    assert list(fake.pods) == [known]
    assert fake.deletes() == [double]


def test_the_first_sweep_stops_at_pods_of_the_state_that_are_gone(fake: FakeRunpod, clock: FakeClock) -> None:
    """A killed `destroy` ends pods that the state still has: an `up` after it must not call that a fleet."""
    there, stray, gone = fake.add(name(1)), fake.add(name(3)), "pod-that-was"
    runtime = runtime_of(fake, clock)
    with pytest.raises(PodsGone, match=rf"{gone}.*up --refresh") as caught:
        runtime.sweep.sweep(wish(name(1), name(2)), pods=[there, gone], first=True)
    assert caught.value.pod_ids == (gone,)
    assert fake.deletes() == [stray], "what is to be swept is swept all the same"
    runtime.sweep.sweep(wish(name(1), name(2)), pods=[there, gone])
    runtime.sweep.sweep(wish(name(1)), pods=[there], first=True)


pods_of_ours = st.lists(
    st.builds(
        lambda n, slot, spec: PodView(id=f"p{n}", name=name(slot, spec), status="RUNNING", uid=UID),
        st.integers(0, 30),
        st.integers(1, 4),
        st.sampled_from(["0badcafe", "ffffffff"]),
    ),
    unique_by=lambda pod: pod.id,
    max_size=8,
)
some_names = st.lists(st.builds(name, st.integers(1, 4)), unique=True, max_size=4)


@given(pods_of_ours, some_names, st.sets(st.integers(0, 30)))
def test_sweep_never_ends_a_known_pod(ours: list[PodView], wanted: list[str], known: set[int]) -> None:
    ids = {f"p{n}" for n in known}
    ended = unknown_pods(ours, wanted=wanted, known=ids)
    assert not {pod.id for pod in ended} & ids
    left = [pod for pod in ours if pod not in ended]
    assert all(pod.id in ids or pod.name in wanted for pod in left)


@given(pods_of_ours, some_names)
def test_guard_never_ends_a_wanted_slot(ours: list[PodView], wanted: list[str]) -> None:
    slots = {without_hash(each) for each in wanted}
    ended = not_wanted_slots(ours, wanted)
    assert {pod.id for pod in ended} == {pod.id for pod in ours if without_hash(pod.name) not in slots}
    assert not_wanted_slots(ours, []) == ours


@pytest.mark.parametrize(
    "wanted", [None, "[]", "04da6b54-80e4-46f7-96ec-b56ff0331ba9", ["04da6b54-80e4-46f7-96ec-b56ff0331ba9"], [""], [7]]
)
def test_only_a_written_list_is_a_wish(wanted: object) -> None:
    with pytest.raises(ConfigError, match="wanted must be a plain list"):
        wish_of({"uid": UID, "prefix": PREFIX, "wanted": wanted})


def test_a_written_empty_list_ends_all() -> None:
    assert wish_of({"uid": UID, "prefix": PREFIX, "wanted": []}).wanted == ()


@pytest.mark.parametrize(("uid", "prefix"), [("", PREFIX), (UID, ""), ("", "")])
def test_nobody_owns_everything(uid: str, prefix: str) -> None:
    assert not is_ours(PodView("p", name(1), "RUNNING", uid=uid), uid=uid, prefix=prefix)
    with pytest.raises(ConfigError):
        wish_of({"uid": uid, "prefix": prefix, "wanted": []})


# Census


def test_the_lists_are_shared_by_all_threads() -> None:
    lists = 0

    def slow() -> tuple[PodView, ...]:
        nonlocal lists
        lists += 1
        time.sleep(0.05)
        return ()

    census = Census(slow, looks=Looks(0.1, 0.1, 0.0), clock=RealClock())
    threads = [threading.Thread(target=lambda: census.absent(["p"], since_s=time.monotonic())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lists <= 4


def test_an_error_in_one_thread_leaves_the_others_their_turn() -> None:
    answers: list[Any] = [ProviderError("down"), ()]

    def once_down() -> tuple[PodView, ...]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ()

    census = Census(once_down, looks=Looks(), clock=RealClock())
    with pytest.raises(ProviderError):
        census.now()
    assert census.recent().pods == ()


# Secrets


def test_a_secret_is_made_rotated_and_removed(fake: FakeRunpod, clock: FakeClock) -> None:
    secrets = runtime_of(fake, clock).secrets
    secret_id = secrets.put("s", "one", "d")
    assert secrets.exists(secret_id, "s")
    secrets.update(secret_id, "s", "two", "d")
    assert fake.secrets[secret_id]["value"] == "two"
    secrets.delete(secret_id)
    secrets.delete(secret_id)
    assert not secrets.exists(secret_id, "s")


def test_a_secret_of_this_name_is_adopted_with_the_new_value(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.secrets["sec9"] = {"name": "s", "value": "old"}
    assert runtime_of(fake, clock).secrets.put("s", "new", "d") == "sec9"
    assert fake.secrets["sec9"]["value"] == "new"


def test_a_secret_whose_answer_is_lost_is_found(fake: FakeRunpod, clock: FakeClock) -> None:
    def made(request: httpx.Request) -> httpx.Response:
        fake.do_post_secret(request)
        return lost(request)

    fake.next("post_secret", made)
    assert runtime_of(fake, clock).secrets.put("s", "v", "d") == "sec1"


def test_a_secret_that_vanished_is_made_again(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime_of(fake, clock).secrets.update("sec9", "s", "v", "d")
    assert [row["value"] for row in fake.secrets.values()] == ["v"]


# Waiting for SSH

SSH = {"ssh": {"proxy": None, "direct": {"host": "127.0.0.1", "port": 2222, "username": "root", "command": ""}}}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBB"


def test_a_pod_is_reachable_when_running_mapped_and_its_key_is_known(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(name(1), status="PROVISIONING")
    clock.at.append((clock.t + 15, lambda: fake.pods[pod_id].update(status="RUNNING")))
    clock.at.append((clock.t + 25, lambda: fake.pods[pod_id].update(SSH)))
    line = [
        ("container", "podfleet-node host-key ssh-ed25519 OLD"),
        ("container", f"podfleet-node host-key {HOST_KEY}"),
    ]
    clock.at.append((clock.t + 35, lambda: fake.logs.update({pod_id: line})))
    way = runtime_of(fake, clock).reachable.wait(pod_id, deadline_s=600)
    assert (way.host, way.port, way.host_key) == ("127.0.0.1", 2222, HOST_KEY)
    assert fake.lists() == 5


@pytest.mark.parametrize("status", ["EXITED", "ERROR"])
def test_a_pod_that_failed_is_told_with_its_last_words(fake: FakeRunpod, clock: FakeClock, status: str) -> None:
    pod_id = fake.add(name(1), status=status)
    fake.logs[pod_id] = [("system", "pulling image"), ("system", "unsatisfied condition: cuda>=12.6")]
    with pytest.raises(PodFailed, match=rf"is {status}; its system log ends: pulling image \| unsatisfied") as caught:
        runtime_of(fake, clock).reachable.wait(pod_id, deadline_s=600)
    assert caught.value.pod_id == pod_id


def test_a_pod_that_is_late_or_gone_is_told(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(name(1), status="STARTING")
    with pytest.raises(PodFailed, match=r"within 600 s \(STARTING\); it still costs money"):
        runtime_of(fake, clock).reachable.wait(pod_id, deadline_s=600)
    with pytest.raises(PodFailed, match="is gone"):
        runtime_of(fake, clock).reachable.wait("pod9", deadline_s=600)


def test_a_host_with_an_old_driver_is_told_as_soon_as_it_shows(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(name(1), status="RUNNING", runtime=None)
    fake.logs[pod_id] = [("system", "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8")]
    started_s = clock.t
    with pytest.raises(PodFailed, match=r"is of no use: driver too old: .*cuda>=12.8; it still costs money"):
        runtime_of(fake, clock).reachable.wait(pod_id, deadline_s=600)
    other = fake.add(name(2), status="RUNNING", runtime=None, cudaVersion="12.4")
    with pytest.raises(PodFailed, match=r"the host has CUDA 12\.4, wanted is 12\.8"):
        runtime_of(fake, clock, min_cuda_version="12.8").reachable.wait(other, deadline_s=600)
    assert clock.t - started_s < 15


def test_who_replaces_what_is_late_waits_no_longer_than_a_boot_may_take(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(name(1), status="RUNNING", runtime=None)
    with pytest.raises(PodFailed, match="within 300 s"):
        runtime_of(fake, clock, boot_deadline_s=300.0).reachable.wait(pod_id, deadline_s=1200)
    looks = [r for r in fake.requests if r.url.path.endswith("/logs")]
    assert len(looks) <= 300 / 30 + 2, "the log of a pod without a container is not read at each poll"


def test_a_list_from_before_the_wait_proves_nothing_of_a_new_pod(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime = runtime_of(fake, clock)
    runtime.census.now()
    clock.sleep(9)  # rented now; lists lag a little
    clock.at.append((clock.t + 3, lambda: fake.add(name(1), **SSH)))
    fake.logs["pod0001"] = [("container", f"podfleet-node host-key {HOST_KEY}")]
    assert runtime.reachable.wait("pod0001", deadline_s=600).host_key == HOST_KEY


# Settings and engine


def test_the_environment_goes_before_the_config() -> None:
    config = {"podfleet:runpodUrl": "http://config/", "podfleet:maxRuntimeMinutes": "2"}
    settings = read_settings({"RUNPOD_API_KEY": "k", "RUNPOD_API_BASE_URL": "http://env/"}, config.get)
    assert (settings.base_url, settings.api_key, settings.max_runtime_s) == ("http://env", "k", 120)
    assert read_settings({}, config.get).base_url == "http://config"


def test_another_url_in_the_shell_than_in_the_config_is_refused() -> None:
    shell = {"RUNPOD_API_BASE_URL": "http://127.0.0.1:8790/"}
    assert access_from(shell, "http://127.0.0.1:8790", "dev-00000001").base_url == "http://127.0.0.1:8790"
    with pytest.raises(ConfigError, match=r"podfleet:runpodUrl: is https://api\.runpod\.io, but .*podfleet env dev"):
        access_from(shell, "https://api.runpod.io", "dev-00000001")


def test_what_the_config_does_not_say_is_what_its_page_says() -> None:
    settings, fields = read_settings({}, {}.get), PodfleetConfig.model_fields
    assert settings.absence_interval_s == fields["absence_interval_seconds"].default
    assert settings.drain_deadline_s == fields["drain_deadline_seconds"].default
    assert settings.max_runtime_s == fields["max_runtime_minutes"].default * 60


def test_every_wrong_setting_is_named() -> None:
    config = {"podfleet:pollIntervalSeconds": "soon", "podfleet:drainDeadlineSeconds": "-1", "podfleet:runpodUrl": "x"}
    with pytest.raises(ConfigError) as caught:
        read_settings({}, config.get)
    assert all(key.partition(":")[2] in str(caught.value) for key in config)


def test_settings_show_no_secret() -> None:
    assert "s3cret" not in repr(ProviderSettings(api_key="s3cret", ssh_private_key="s3cret"))


def test_an_engine_whose_chain_of_parents_changes_is_gone() -> None:
    chain = [(100, 90)]
    watch = EngineWatch(lambda: chain[-1], None)
    watch.require("x")
    chain.append((100, 1))
    with pytest.raises(Exception, match="not done: renting"):
        watch.require("renting")


def test_an_engine_whose_port_is_closed_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        watch = EngineWatch(lambda: (1,), port)
        watch.require("x")
    with pytest.raises(Exception, match="has died"):
        watch.require("x")
