"""Renting, reading and ending one pod: never two of one name, never one that nobody knows of."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runpod_fakes import CAPACITY, SPEC, UID, Answer, FakeClock, FakeRunpod, client_of, lost, problem, runtime_of

from podfleet.errors import (
    ApiUnavailable,
    CreateFailed,
    EngineGone,
    NoBalance,
    NoCapacity,
    OtherFleetFound,
    PodfleetError,
    ProviderError,
    RequestRejected,
    StillThere,
)
from podfleet.providers.runpod.core import diff
from podfleet.providers.runpod.runtime import build
from podfleet.providers.runpod.settings import ProviderSettings

NO_ROOM: Answer = lambda _: problem(400, CAPACITY)  # noqa: E731


@pytest.fixture
def fake() -> FakeRunpod:
    return FakeRunpod()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_create_posts_once_and_returns_as_soon_as_there_is_an_id(fake: FakeRunpod, clock: FakeClock) -> None:
    pod = runtime_of(fake, clock).pods.create(SPEC)
    assert pod.status == "PROVISIONING"
    (body,) = fake.posts()
    assert body["gpu"] == {"id": "GPU A", "count": 1, "minCudaVersion": "12.8"}
    assert "dataCenterIds" not in body


def test_the_pod_knows_whose_it_is_and_when_its_life_ends(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime_of(fake, clock, max_runtime_s=3600.0).pods.create(SPEC)
    env = fake.posts()[0]["env"]
    assert env["PODFLEET_UID"] == UID
    assert env["PODFLEET_SPEC_HASH"] == "0badcafe"
    assert env["PODFLEET_SLOT"] == "slot-01"
    assert float(env["PODFLEET_EXPIRES_AT_S"]) == pytest.approx(clock.now_s() + 3600, abs=1)
    assert env["PODFLEET_NODE_NAME"] == "n"


def test_a_pod_has_no_end_only_where_somebody_wrote_0(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime_of(fake, clock, max_runtime_s=0.0).pods.create(SPEC)
    assert "PODFLEET_EXPIRES_AT_S" not in fake.posts()[0]["env"]


def test_a_live_pod_of_this_name_is_adopted(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(SPEC.name, status="STARTING")
    assert runtime_of(fake, clock).pods.create(SPEC).id == pod_id
    assert fake.posts() == []


@pytest.mark.parametrize(
    "other", [{"uid": "prod-00000002"}, {"env": {"PODFLEET_UID": UID, "PODFLEET_SPEC_HASH": "deadbeef"}}]
)
def test_a_pod_of_this_name_that_is_another_is_left_alone(
    fake: FakeRunpod, clock: FakeClock, other: dict[str, str]
) -> None:
    pod_id = fake.add(SPEC.name, **other)
    assert runtime_of(fake, clock).pods.create(SPEC).id != pod_id
    assert pod_id in fake.pods


def test_of_several_pods_of_this_name_the_oldest_stays(fake: FakeRunpod, clock: FakeClock) -> None:
    ids = [fake.add(SPEC.name) for _ in range(3)]
    assert runtime_of(fake, clock).pods.create(SPEC).id == ids[0]
    assert list(fake.pods) == ids[:1]


def test_a_dead_pod_of_this_name_is_ended_and_not_adopted(fake: FakeRunpod, clock: FakeClock) -> None:
    dead = fake.add(SPEC.name, status="EXITED")
    pod = runtime_of(fake, clock).pods.create(SPEC)
    assert pod.id != dead
    assert list(fake.pods) == [pod.id]


def test_a_pod_that_this_process_has_ended_is_not_adopted_from_an_older_list(
    fake: FakeRunpod, clock: FakeClock
) -> None:
    runtime = runtime_of(fake, clock, poll_interval_s=1000.0, absence_interval_s=0.0)
    old = fake.add(SPEC.name)
    runtime.pods.delete(old, uid=UID)
    assert runtime.pods.create(SPEC).id != old


def test_no_capacity_asks_the_next_candidate(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", NO_ROOM)
    runtime_of(fake, clock).pods.create(SPEC)
    assert [body["gpu"]["id"] for body in fake.posts()] == ["GPU A", "GPU B"]


def test_no_capacity_anywhere_is_one_line_and_no_pod(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", NO_ROOM, NO_ROOM)
    with pytest.raises(
        NoCapacity, match=r"slot-01.*none of 2 candidates.*GPU A SECURE, GPU B SECURE.*no longer any instances"
    ):
        runtime_of(fake, clock).pods.create(SPEC)
    assert fake.pods == {}


def test_an_unknown_400_is_tried_elsewhere_and_shown_if_all_fail(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lambda _: problem(400, "gpu id is not known"), NO_ROOM)
    with pytest.raises(RequestRejected, match=r"gpu id is not known \(request req-1\)"):
        runtime_of(fake, clock).pods.create(SPEC)
    assert len(fake.posts()) == 2


@pytest.mark.parametrize("status", [401, 402, 404, 422])
def test_some_refusals_stop_at_once(fake: FakeRunpod, clock: FakeClock, status: int) -> None:
    fake.next("post_pod", lambda _: problem(status, "no"))
    with pytest.raises(ProviderError):
        runtime_of(fake, clock).pods.create(SPEC)
    assert len(fake.posts()) == 1


def _create_then(answer: Answer, fake: FakeRunpod) -> Answer:
    def carried_out(request: httpx.Request) -> httpx.Response:
        fake.do_post_pod(request)
        return answer(request)

    return carried_out


@pytest.mark.parametrize("answer", [lost, lambda _: problem(500, "Something went wrong."), lambda _: problem(502, "")])
def test_a_create_whose_answer_is_lost_is_found_by_its_name(fake: FakeRunpod, clock: FakeClock, answer: Answer) -> None:
    fake.next("post_pod", _create_then(answer, fake))
    pod = runtime_of(fake, clock).pods.create(SPEC)
    assert list(fake.pods) == [pod.id]
    assert len(fake.posts()) == 1


def test_a_pod_that_is_listed_only_after_a_while_is_found(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lost)
    clock.at.append((clock.t + 45, lambda: fake.add(SPEC.name)))
    assert runtime_of(fake, clock).pods.create(SPEC).id == "pod0001"
    assert len(fake.posts()) == 1


def test_after_a_minute_without_the_pod_the_next_candidate_is_asked(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lost)
    start = clock.t
    runtime_of(fake, clock).pods.create(SPEC)
    assert len(fake.posts()) == 2
    assert clock.t - start >= 60


def test_before_it_raises_it_proves_that_there_is_no_pod(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime = runtime_of(fake, clock, reconcile_s=5.0)
    one = replace(SPEC, gpu_types=("GPU A",))
    fake.next("post_pod", lost)
    start = clock.t
    with pytest.raises(NoCapacity):
        runtime.pods.create(one)
    assert clock.t - start >= 15  # five seconds of looking, then two lists ten seconds apart


def test_a_pod_that_appears_during_the_proof_is_taken(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lost, lambda _: problem(402, "balance"))
    clock.at.append((clock.t + 14, lambda: fake.add(SPEC.name)))
    assert runtime_of(fake, clock, reconcile_s=5.0).pods.create(SPEC).id == "pod0001"


def test_an_unclear_create_and_no_list_says_so(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime = runtime_of(fake, clock, reconcile_s=5.0)
    fake.next("post_pod", lost)
    fake.next("get_pod", fake.do_get_pod, *[lambda _: problem(500, "down")] * 400)
    with pytest.raises(CreateFailed, match="not known whether") as caught:
        runtime.pods.create(replace(SPEC, gpu_types=("GPU A",)))
    assert caught.value.name == SPEC.name


def test_while_nobody_can_look_no_second_pod_is_asked_for(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", _create_then(lost, fake))
    fake.next("get_pod", fake.do_get_pod, *[lambda _: problem(500, "down")] * 400)
    with pytest.raises(CreateFailed, match="not known whether"):
        runtime_of(fake, clock, reconcile_s=5.0).pods.create(SPEC)
    assert len(fake.posts()) == 1


def test_an_api_that_cannot_list_rents_nothing(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("get_pod", *[lambda _: problem(500, "down")] * 4)
    with pytest.raises(ApiUnavailable):
        runtime_of(fake, clock).pods.create(SPEC)
    assert fake.posts() == []


def test_without_its_engine_it_rents_nothing(fake: FakeRunpod, clock: FakeClock) -> None:
    class Gone:
        def require(self, what: str) -> None:
            raise EngineGone(what)

    runtime = build(ProviderSettings(api_key="k"), client_of(fake, clock), Gone(), clock)
    with pytest.raises(EngineGone):
        runtime.pods.create(SPEC)
    fake.add(SPEC.name)
    with pytest.raises(EngineGone):
        runtime.pods.delete("pod0001", uid=UID)
    assert fake.posts() == []
    assert fake.deletes() == []


def test_an_engine_that_dies_during_a_wait_for_the_rate_limit_gets_no_pod(fake: FakeRunpod, clock: FakeClock) -> None:
    class DiesLater:
        def require(self, what: str) -> None:
            if fake.posts():
                raise EngineGone(what)

    fake.next("post_pod", lambda _: problem(429, "slow down", **{"Retry-After": "30"}))
    with pytest.raises(EngineGone):
        build(ProviderSettings(api_key="k"), client_of(fake, clock), DiesLater(), clock).pods.create(SPEC)
    assert len(fake.posts()) == 1


@pytest.mark.parametrize("status", ["RUNNING", "EXITED", "ERROR", "PROVISIONING"])
def test_read_keeps_a_listed_pod_whatever_its_status(fake: FakeRunpod, clock: FakeClock, status: str) -> None:
    pod_id = fake.add(SPEC.name, status=status)
    pod = runtime_of(fake, clock).pods.read(pod_id)
    assert pod is not None
    assert pod.status == status


def test_read_calls_a_pod_gone_after_two_lists_ten_seconds_apart(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime, start = runtime_of(fake, clock), clock.t
    assert runtime.pods.read("pod9") is None
    assert clock.t - start >= 10


def test_a_pod_that_one_list_forgets_is_not_gone(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(SPEC.name)
    fake.next("get_pod", _list_empty)
    pod = runtime_of(fake, clock).pods.read(pod_id)
    assert pod is not None


def _list_empty(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"pods": []})


@pytest.mark.parametrize("status", [500, 429])
def test_a_list_that_fails_is_no_absence(fake: FakeRunpod, clock: FakeClock, status: int) -> None:
    fake.next("get_pod", _list_empty, *[lambda _: problem(status, "x", **{"Retry-After": "900"})] * 9)
    with pytest.raises(ProviderError):
        runtime_of(fake, clock).pods.read("pod9")


def test_delete_ends_the_pod_and_proves_it(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id, start = fake.add(SPEC.name), clock.t
    runtime_of(fake, clock).pods.delete(pod_id, uid=UID)
    assert fake.deletes() == [pod_id]
    assert clock.t - start >= 10


def test_delete_of_an_absent_pod_succeeds(fake: FakeRunpod, clock: FakeClock) -> None:
    runtime_of(fake, clock).pods.delete("pod9", uid=UID)


def test_delete_never_touches_another_fleet(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(SPEC.name, uid="prod-00000002")
    with pytest.raises(OtherFleetFound, match="not touched"):
        runtime_of(fake, clock).pods.delete(pod_id, uid=UID)
    assert fake.deletes() == []


def test_a_pod_that_stays_after_its_end_is_asked_again_and_then_named(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(SPEC.name)
    fake.next("delete_pod", *[lambda _: httpx.Response(204)] * 99)
    with pytest.raises(StillThere, match="still costs money") as caught:
        runtime_of(fake, clock).pods.delete(pod_id, uid=UID)
    assert caught.value.pod_ids == (pod_id,)
    assert len(fake.deletes()) > 3


def test_a_delete_that_is_ignored_once_succeeds(fake: FakeRunpod, clock: FakeClock) -> None:
    pod_id = fake.add(SPEC.name)
    fake.next("delete_pod", lambda _: httpx.Response(204))
    runtime_of(fake, clock).pods.delete(pod_id, uid=UID)
    assert fake.pods == {}


IDENTITY = {"name": "n", "uid": "u", "specHash": "h"}


@pytest.mark.parametrize("status", ["PROVISIONING", "STARTING", "RUNNING", "UNKNOWN", "MIGRATING"])
@pytest.mark.parametrize("key", ["env", "ports", "diskGb", "maxUsdPerHour", "image"])
def test_nothing_but_the_identity_replaces_a_live_pod(status: str, key: str) -> None:
    assert diff({**IDENTITY, "status": status, key: 1}, {**IDENTITY, key: 2}) == []


@pytest.mark.parametrize("status", ["EXITED", "ERROR", "TERMINATED", None])
def test_a_pod_that_is_not_alive_is_replaced(status: str | None) -> None:
    assert diff({**IDENTITY, "status": status}, IDENTITY) == ["status"]


def test_another_name_is_another_pod() -> None:
    assert diff({**IDENTITY, "status": "RUNNING"}, {**IDENTITY, "name": "m"}) == ["name"]


@given(
    st.lists(st.sampled_from(["ok", "full", "rejected", "lost", "lost but made", "500 but made"]), max_size=6),
    st.integers(0, 2),
)
def test_whatever_the_api_says_there_is_at_most_one_pod_and_none_that_is_not_returned(
    answers: list[str], before: int
) -> None:
    fake, clock = FakeRunpod(), FakeClock()
    for _ in range(before):
        fake.add(SPEC.name)
    table: dict[str, Answer] = {
        "ok": fake.do_post_pod,
        "full": NO_ROOM,
        "rejected": lambda _: problem(400, "what?"),
        "lost": lost,
        "lost but made": _create_then(lost, fake),
        "500 but made": _create_then(lambda _: problem(500, "x"), fake),
    }
    fake.next("post_pod", *[table[answer] for answer in answers])
    try:
        returned = [runtime_of(fake, clock).pods.create(SPEC).id]
    except PodfleetError:
        returned = []
    assert list(fake.pods) == returned


def test_no_balance_is_told_as_it_is(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lambda _: problem(402, "Your account balance is too low to rent a pod"))
    with pytest.raises(NoBalance, match="balance is too low"):
        runtime_of(fake, clock).pods.create(SPEC)


def test_no_balance_for_one_pod_stops_the_others_of_this_run_without_asking(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lambda _: problem(402, "Your account balance is too low to rent a pod"))
    pods = runtime_of(fake, clock).pods
    for slot in ("slot-01", "slot-02", "slot-03"):
        with pytest.raises(NoBalance, match=r"balance is too low.*top up"):
            pods.create(replace(SPEC, name=f"podfleet-dev-{slot}-0badcafe", slot=slot))
    assert len(fake.posts()) == 1
    assert fake.names() == []
