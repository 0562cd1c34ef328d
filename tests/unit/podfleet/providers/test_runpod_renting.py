"""The create loop: which candidates are asked, in which order, how often, with whose money, and its last word."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runpod_fakes import CAPACITY, NONE_LEFT, Answer, FakeClock, FakeRunpod, gpu_row, lost, problem, runtime_of

from podfleet.errors import (
    ApiUnavailable,
    AuthError,
    CreateFailed,
    EngineGone,
    NoBalance,
    NoCapacity,
    PodfleetError,
    RequestRejected,
    SpendLimit,
)
from podfleet.placement import Avoid, Rules
from podfleet.providers.runpod.catalogue import Catalogue
from podfleet.providers.runpod.core import PodCore, RentSpec
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.renting import Means, RentPolicy

UID = "dev-00000001"
SPEC = RentSpec(
    name="podfleet-dev-slot-01-0badcafe",
    uid=UID,
    slot="slot-01",
    spec_hash="0badcafe",
    image="img:1",
    gpu_types=(),
    cloud="SECURE",
    data_center_ids=(),
    min_cuda_version="12.8",
    disk_gb=20,
    ports=(),
)
OTHER = replace(SPEC, name="podfleet-dev-slot-02-0badcafe", slot="slot-02")
BROKE: Answer = lambda _: problem(402, "Your account balance is too low to rent a pod")  # noqa: E731
NO_ROOM: Answer = lambda _: problem(400, CAPACITY)  # noqa: E731
A4000, A5000, L4 = "NVIDIA RTX A4000", "NVIDIA RTX A5000", "NVIDIA L4"
DEAR, CHEAP = gpu_row("GPU Z", 0.9), gpu_row("GPU Y", 0.1)


@pytest.fixture
def fake() -> FakeRunpod:
    return FakeRunpod()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Purse:
    """A spend guard that writes down what it is told, and refuses from a price on."""

    def __init__(self, refuses_from: float = 9e9, key: str = "maxUsdPerHour") -> None:
        self.told: list[tuple[str, object]] = []
        self._from, self._key = refuses_from, key

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        if usd_per_hr >= self._from or not usd_per_hr:
            self.told.append(("refused", usd_per_hr))
            raise SpendLimit(f"podfleet:{self._key} is $0.50/h", key=self._key)
        self.told.append(("reserved", usd_per_hr))

    def settle(self, name: str, pod_id: str | None) -> None:
        self.told.append(("settled", pod_id))


def core_of(fake: FakeRunpod, clock: FakeClock, purse: Purse, **policy: Any) -> PodCore:
    run = runtime_of(fake, clock)
    chosen = RentPolicy(reconcile_s=5.0, reconcile_pause_s=5.0, max_runtime_s=0.0, **policy)
    means = Means(Catalogue(run.client, clock, max_age_s=10.0), purse, lambda: 0.5)
    return PodCore(run.client, run.census, run.ending, NoEngine(), clock, chosen, means)


# Order


def test_the_least_money_for_an_hour_of_audio_is_asked_first(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row(L4, 0.24), gpu_row(A4000, 0.25), gpu_row(A5000, 0.27, 0.16)]
    fake.next("post_pod", *[NO_ROOM] * 3)
    rented = runtime_of(fake, clock).pods.rent(replace(SPEC, cloud="ALL"))
    assert fake.asked() == [f"{A5000} COMMUNITY", f"{A5000} SECURE", f"{L4} SECURE", f"{A4000} SECURE"]
    assert rented.candidate == f"{A4000} SECURE at $0.25/h, $0.00086 per hour of audio (estimated by ratio)"
    assert [line.split(":")[0] for line in rented.rejected] == [
        f"{A5000} COMMUNITY",
        f"{A5000} SECURE",
        f"{L4} SECURE",
    ]


def test_measured_speeds_blocks_and_caps_come_from_the_configuration(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row(L4, 0.49), gpu_row(A4000, 0.25), gpu_row(A5000, 0.27)]
    rules = Rules(speeds=((L4, 5000.0),), blocked=(A5000,), max_usd_per_hr=0.5)
    fake.next("post_pod", NO_ROOM)
    runtime_of(fake, clock, rules=rules).pods.create(SPEC)
    assert fake.asked() == [f"{L4} SECURE", f"{A4000} SECURE"]


def test_the_listed_order_is_kept_where_it_is_asked_for(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [CHEAP, DEAR]
    runtime_of(fake, clock, rules=Rules(order="listed")).pods.create(replace(SPEC, gpu_types=("GPU Z", "GPU Y")))
    assert fake.asked() == ["GPU Z SECURE"]


def test_hosts_to_avoid_are_passed_over(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [{**CHEAP, "dataCenters": [{"id": "EU-1"}, {"id": "EU-2"}]}]
    rented = runtime_of(fake, clock, avoid=(Avoid("GPU Y", "SECURE", "EU-1"),)).pods.rent(SPEC)
    assert fake.asked() == ["GPU Y SECURE EU-2"]
    assert rented.rejected == ("GPU Y SECURE EU-1: failed at boot (avoid)",)


# Rounds


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, 10.0), (0.5, 20.0), (1.0, 30.0)])
def test_all_candidates_are_asked_again_after_a_jittered_pause(
    fake: FakeRunpod, clock: FakeClock, jitter: float, wait_s: float
) -> None:
    fake.next("post_pod", *[NO_ROOM] * 5)
    start_s = clock.t
    runtime_of(fake, clock, jitter=jitter, create_rounds=3, create_round_wait_s=20.0).pods.create(SPEC)
    assert fake.asked() == ["GPU A SECURE", "GPU B SECURE"] * 3
    assert clock.t - start_s == pytest.approx(2 * wait_s, abs=0.1)


def test_each_round_reads_the_catalogue_anew(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row("GPU A", 0.25, **NONE_LEFT)]
    clock.at.append((clock.t + 1, lambda: fake.gpus.append(CHEAP)))
    runtime_of(fake, clock, create_rounds=2).pods.create(SPEC)
    assert fake.catalogue_reads() == ["SECURE", "SECURE"]
    assert fake.asked() == ["GPU Y SECURE"]


def test_the_rounds_have_an_end_and_the_last_word_counts_them(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", *[NO_ROOM] * 99)
    with pytest.raises(NoCapacity, match=r"none of 2 candidates \(GPU A SECURE, GPU B SECURE\) could be rented in 3 r"):
        runtime_of(fake, clock, create_rounds=3).pods.create(SPEC)
    assert len(fake.posts()) == 6


def test_a_refusal_that_waiting_does_not_mend_is_not_waited_for(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", *[lambda _: problem(400, "the moon is in the wrong house")] * 9)
    start_s = clock.t
    with pytest.raises(RequestRejected, match=r"moon is in the wrong house \(request req-1\)") as caught:
        runtime_of(fake, clock, create_rounds=3).pods.create(SPEC)
    assert (len(fake.posts()), caught.value.request_id) == (2, "req-1")
    assert clock.t - start_s < 1


def test_an_unknown_400_is_not_asked_again_in_the_next_round(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lambda _: problem(400, "gpu id is not known"), *[NO_ROOM] * 9)
    with pytest.raises(RequestRejected, match="gpu id is not known"):
        runtime_of(fake, clock, create_rounds=3).pods.create(SPEC)
    assert fake.asked() == ["GPU A SECURE", *["GPU B SECURE"] * 3]


def test_the_same_unknown_refusal_three_times_on_end_is_the_requests_fault(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row(f"GPU {number}", 0.1 * number) for number in range(1, 10)]
    fake.next("post_pod", *[lambda _: problem(400, "registry credential is not usable")] * 9)
    with pytest.raises(RequestRejected, match="registry credential is not usable"):
        runtime_of(fake, clock).pods.create(SPEC)
    assert len(fake.posts()) == 3


def test_a_pool_that_is_not_allowed_is_skipped(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lambda _: problem(403, "access denied"))
    rented = runtime_of(fake, clock).pods.rent(SPEC)
    assert fake.asked() == ["GPU A SECURE", "GPU B SECURE"]
    assert rented.rejected == ("GPU A SECURE: RunPod says 403: access denied (request req-1)",)


@pytest.mark.parametrize("status", [404, 422])
def test_what_no_candidate_would_take_stops_at_once(fake: FakeRunpod, clock: FakeClock, status: int) -> None:
    fake.next("post_pod", lambda _: problem(status, "no"))
    with pytest.raises(RequestRejected):
        runtime_of(fake, clock, create_rounds=3).pods.create(SPEC)
    assert len(fake.posts()) == 1


def test_no_balance_stops_a_create_that_waits_for_its_next_round(fake: FakeRunpod, clock: FakeClock) -> None:
    pods = runtime_of(fake, clock, create_rounds=3, create_round_wait_s=60.0).pods
    fake.next("post_pod", NO_ROOM, NO_ROOM, BROKE)
    others: list[str] = []

    def another() -> None:
        with pytest.raises(NoBalance) as caught:
            pods.create(OTHER)
        others.append(str(caught.value))

    start_s = clock.t
    clock.at.append((start_s + 5, another))
    with pytest.raises(NoBalance, match=r"402: .*balance is too low.*: nothing was rented; top up") as caught:
        pods.create(SPEC)
    assert [str(caught.value)] == others
    assert clock.t - start_s < 10
    assert len(fake.posts()) == 3


def test_a_create_that_waits_stops_with_its_engine(fake: FakeRunpod, clock: FakeClock) -> None:
    class DiesLater:
        def require(self, what: str) -> None:
            if clock.t > 1010:
                raise EngineGone(what)

    run = runtime_of(fake, clock)
    means = Means(Catalogue(run.client, clock, max_age_s=10.0), Purse(), lambda: 0.5)
    policy = RentPolicy(5.0, 5.0, 0.0, rounds=9, round_wait_s=60.0)
    fake.next("post_pod", *[NO_ROOM] * 99)
    with pytest.raises(EngineGone):
        PodCore(run.client, run.census, run.ending, DiesLater(), clock, policy, means).create(SPEC)
    assert (len(fake.posts()), clock.t < 1015) == (2, True)


def test_a_pod_that_comes_to_light_in_the_pause_is_taken(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", lost, NO_ROOM)
    clock.at.append((clock.t + 20, lambda: fake.add(SPEC.name)))
    pods = core_of(fake, clock, Purse(), rounds=2, round_wait_s=60.0)
    assert pods.create(SPEC).id == "pod0001"
    assert fake.asked() == ["GPU A SECURE", "GPU B SECURE"]


def test_nobody_waits_for_stock_that_is_too_dear_or_for_a_request_that_is_wrong(
    fake: FakeRunpod, clock: FakeClock
) -> None:
    fake.gpus = [gpu_row(f"GPU {number}", 0.1 * number) for number in range(1, 10)]
    fake.gpus.append(gpu_row("GPU Z", 0.05, **NONE_LEFT))
    start_s = clock.t
    with pytest.raises(SpendLimit):
        core_of(fake, clock, Purse(0.1), rounds=3, round_wait_s=60.0).create(SPEC)
    fake.next("post_pod", NO_ROOM, *[lambda _: problem(400, "registry credential is not usable")] * 3)
    with pytest.raises(RequestRejected):
        core_of(fake, clock, Purse(), rounds=3, round_wait_s=60.0).create(SPEC)
    assert (len(fake.posts()), clock.t - start_s < 1) == (4, True)


# The catalogue


def test_creates_of_one_process_share_a_reading(fake: FakeRunpod, clock: FakeClock) -> None:
    pods = runtime_of(fake, clock).pods
    for slot in range(5):
        pods.create(replace(SPEC, name=f"podfleet-dev-slot-0{slot}-0badcafe"))
    assert fake.catalogue_reads() == ["SECURE"]


def test_threads_that_ask_at_the_same_time_share_a_reading() -> None:
    class Slow:
        reads = 0

        def gpu_offers(self, *, cloud: str, min_cuda_version: str = "") -> tuple[Any, ...]:
            self.reads += 1
            started.wait(5)
            return ()

    class Stands(FakeClock):
        def monotonic_s(self) -> float:
            return 0.0

    slow, started = Slow(), threading.Event()
    catalogue = Catalogue(slow, Stands(), max_age_s=10.0)
    threads = [threading.Thread(target=catalogue.recent, args=(("SECURE",), "12.8")) for _ in range(16)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()
    assert slow.reads == 1


def test_a_candidate_that_refused_two_creates_is_not_asked_by_the_third_until_the_next_reading(
    fake: FakeRunpod, clock: FakeClock
) -> None:
    pods = runtime_of(fake, clock).pods
    fake.next("post_pod", NO_ROOM, fake.do_post_pod, NO_ROOM)
    for slot in range(3):
        pods.create(replace(SPEC, name=f"podfleet-dev-slot-0{slot}-0badcafe"))
    assert fake.asked() == ["GPU A SECURE", "GPU B SECURE"] * 2 + ["GPU B SECURE"]
    clock.sleep(11)
    pods.create(replace(SPEC, name="podfleet-dev-slot-09-0badcafe"))
    assert fake.asked()[-1] == "GPU A SECURE"


def test_a_pod_in_between_shows_that_there_is_room(fake: FakeRunpod, clock: FakeClock) -> None:
    pods = runtime_of(fake, clock).pods
    ok = fake.do_post_pod
    fake.next("post_pod", NO_ROOM, ok, ok, NO_ROOM, ok)
    for slot in range(4):
        pods.create(replace(SPEC, name=f"podfleet-dev-slot-0{slot}-0badcafe"))
    assert fake.asked()[-1] == "GPU A SECURE"


def test_without_a_catalogue_the_listed_types_are_asked_in_their_order(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("get_gpus", *[lambda _: problem(503, "down")] * 9)
    fake.next("post_pod", *[NO_ROOM] * 5)
    purse = Purse()
    listed = replace(SPEC, gpu_types=(L4, A5000), cloud="ALL", data_center_ids=("EU-1", "EU-2"))
    core_of(fake, clock, purse).create(listed)
    assert fake.asked() == [f"{gpu} {cloud} {place}" for gpu, cloud, place in _product(listed)]
    assert {told for told in purse.told if told[0] == "refused"} == {("refused", 0.0)}  # the table has no such price


def _product(spec: RentSpec) -> list[tuple[str, str, str]]:
    known = {(L4, "SECURE"), (A5000, "SECURE"), (A5000, "COMMUNITY")}
    pairs = [(gpu, cloud) for gpu in spec.gpu_types for cloud in ("SECURE", "COMMUNITY") if (gpu, cloud) in known]
    return [(gpu, cloud, place) for gpu, cloud in pairs for place in spec.data_center_ids]


def test_without_a_catalogue_and_a_list_there_is_nothing_to_choose_from(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("get_gpus", *[lambda _: problem(503, "down")] * 99)
    with pytest.raises(ApiUnavailable, match=r"catalogue does not answer.*503: down.*podfleet:gpuTypes"):
        runtime_of(fake, clock, create_rounds=2).pods.create(SPEC)
    assert fake.posts() == []


def test_a_catalogue_that_comes_back_is_used_in_the_next_round(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("get_gpus", *[lambda _: problem(503, "down")] * 4)
    runtime_of(fake, clock, create_rounds=2).pods.create(SPEC)
    assert fake.asked() == ["GPU A SECURE"]


def test_a_catalogue_that_refuses_the_key_stops_the_create(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("get_gpus", lambda _: problem(401, "missing bearer token"))
    with pytest.raises(AuthError):
        runtime_of(fake, clock).pods.create(SPEC)
    assert fake.posts() == []


# Money


def test_each_post_is_reserved_before_and_settled_after(fake: FakeRunpod, clock: FakeClock) -> None:
    purse = Purse()
    fake.next("post_pod", NO_ROOM)
    pod = core_of(fake, clock, purse).create(SPEC)
    assert purse.told == [("reserved", 0.25), ("settled", None), ("reserved", 0.3), ("settled", pod.id)]


def test_an_adopted_pod_needs_no_money(fake: FakeRunpod, clock: FakeClock) -> None:
    purse = Purse()
    fake.add(SPEC.name)
    rented = core_of(fake, clock, purse).rent(SPEC)
    assert purse.told == []
    assert rented.candidate.endswith("found by its name")


def test_a_candidate_that_is_too_dear_leaves_a_cheaper_one_to_be_asked(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row(A5000, 0.6), gpu_row(A4000, 0.4), gpu_row(L4, 0.7)]
    purse = Purse(refuses_from=0.5)
    core_of(fake, clock, purse).create(SPEC)
    assert fake.asked() == [f"{A4000} SECURE"]
    assert [what for what, _ in purse.told] == ["refused", "reserved", "settled"]


def test_where_all_are_too_dear_the_guards_word_is_the_last_and_nobody_waits(
    fake: FakeRunpod, clock: FakeClock
) -> None:
    start_s = clock.t
    with pytest.raises(SpendLimit, match=r"^podfleet:maxUsdPerHour is") as caught:
        core_of(fake, clock, Purse(0.1), rounds=3, round_wait_s=60.0).create(SPEC)
    assert (caught.value.key, fake.posts(), clock.t - start_s < 1) == ("maxUsdPerHour", [], True)


def test_a_limit_on_pods_is_final(fake: FakeRunpod, clock: FakeClock) -> None:
    purse = Purse(0.3, key="maxPods")
    fake.next("post_pod", NO_ROOM)
    with pytest.raises(SpendLimit):
        core_of(fake, clock, purse, rounds=3).create(SPEC)
    assert [what for what, _ in purse.told] == ["reserved", "settled", "refused"]


def test_what_is_cheaper_is_waited_for_and_then_both_are_told(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", *[NO_ROOM] * 9)
    with pytest.raises(SpendLimit, match=r"maxUsdPerHour is .*; of what is cheaper, none of 1 candidates \(GPU A"):
        core_of(fake, clock, Purse(0.3), rounds=2).create(SPEC)
    assert fake.asked() == ["GPU A SECURE"] * 2


@pytest.mark.parametrize("answer", [lost, lambda _: problem(500, "x")])
def test_an_unclear_answer_is_settled_when_it_is_clear(fake: FakeRunpod, clock: FakeClock, answer: Answer) -> None:
    def carried_out(request: httpx.Request) -> httpx.Response:
        fake.do_post_pod(request)
        return answer(request)

    purse = Purse()
    fake.next("post_pod", answer, carried_out)
    pod = core_of(fake, clock, purse).create(SPEC)
    assert purse.told == [("reserved", 0.25), ("settled", None), ("reserved", 0.3), ("settled", pod.id)]


def test_what_nobody_knows_stays_reserved(fake: FakeRunpod, clock: FakeClock) -> None:
    purse = Purse()
    fake.next("post_pod", lost)
    fake.next("get_pod", fake.do_get_pod, *[lambda _: problem(500, "down")] * 400)
    with pytest.raises(CreateFailed):
        core_of(fake, clock, purse).create(SPEC)
    assert purse.told == [("reserved", 0.25)]


def test_a_post_that_was_never_sent_is_settled(fake: FakeRunpod, clock: FakeClock) -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    purse = Purse()
    fake.next("post_pod", unreachable)
    with pytest.raises(ApiUnavailable):
        core_of(fake, clock, purse).create(SPEC)
    assert purse.told == [("reserved", 0.25), ("settled", None)]


# Drivers


def _on_cuda(fake: FakeRunpod, version: str | None, place: str = "EU-1") -> Answer:
    def made(request: httpx.Request) -> httpx.Response:
        response = fake.do_post_pod(request)
        pod = fake.pods[response.json()["id"]]
        pod |= {"cudaVersion": version, "dataCenterId": place}
        return httpx.Response(201, json=pod)

    return made


def test_a_pod_on_an_old_driver_is_ended_and_the_next_candidate_asked(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", _on_cuda(fake, "12.4"), _on_cuda(fake, "12.10"))
    start_s = clock.t
    rented = runtime_of(fake, clock).pods.rent(SPEC)
    assert fake.deletes() == ["pod0001"]
    assert list(fake.pods) == [rented.pod.id]
    assert clock.t - start_s >= 10, "its end is proven"
    assert fake.asked() == ["GPU A SECURE", "GPU B SECURE"]
    assert rented.rejected[0] == "GPU A SECURE: driver too old: the host has CUDA 12.4, wanted is 12.8"


def test_after_an_old_driver_the_other_data_centres_of_the_best_offer_come_first(
    fake: FakeRunpod, clock: FakeClock
) -> None:
    fake.gpus = [{**CHEAP, "dataCenters": [{"id": "EU-1"}, {"id": "EU-2"}]}, DEAR]
    fake.next("post_pod", _on_cuda(fake, "12.4", "EU-1"), _on_cuda(fake, None, "EU-2"))
    pod = runtime_of(fake, clock).pods.create(SPEC)
    assert fake.asked() == ["GPU Y SECURE", "GPU Y SECURE EU-2"]
    assert list(fake.pods) == [pod.id]


def test_an_old_driver_whose_pod_cannot_be_ended_is_told_with_its_id(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", _on_cuda(fake, "12.4"))
    fake.next("delete_pod", *[lambda _: httpx.Response(204)] * 99)
    with pytest.raises(CreateFailed, match=r"pod0001.*CUDA 12.4.*not proven gone") as caught:
        runtime_of(fake, clock).pods.create(SPEC)
    assert (caught.value.pod_id, len(fake.posts())) == ("pod0001", 1)


def test_a_pod_of_this_name_on_an_old_driver_is_not_adopted(fake: FakeRunpod, clock: FakeClock) -> None:
    old = fake.add(SPEC.name, cudaVersion="12.4")
    pod = runtime_of(fake, clock).pods.create(SPEC)
    assert pod.id != old
    assert list(fake.pods) == [pod.id]


# The last word


def test_the_last_word_names_the_binding_filter_and_the_last_detail(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row("GPU A", 0.2), *[gpu_row(f"OLD {n}", 0.2, cuda=12.4) for n in range(2)]]
    fake.gpus += [gpu_row(f"DEAR {n}", 0.9) for n in range(5)]
    fake.next("post_pod", NO_ROOM)
    with pytest.raises(NoCapacity) as caught:
        runtime_of(fake, clock, rules=Rules(max_usd_per_hr=0.2)).pods.create(SPEC)
    assert str(caught.value) == (
        "podfleet-dev-slot-01-0badcafe: none of 1 candidates (GPU A SECURE) could be rented: RunPod says 400: "
        f"{CAPACITY} (request req-1). 5 offers match without `maxUsdPerPodHour: 0.2`; 2 match without "
        "`minCudaVersion: 12.8`: relax it in the stack file, or run it again later"
    )


def test_where_no_offer_fits_nothing_is_asked_and_nobody_waits(fake: FakeRunpod, clock: FakeClock) -> None:
    start_s = clock.t
    with pytest.raises(NoCapacity) as caught:
        runtime_of(fake, clock, create_rounds=3, rules=Rules(max_usd_per_hr=0.2)).pods.create(SPEC)
    assert str(caught.value) == (
        "podfleet-dev-slot-01-0badcafe: no offer fits (GPU A SECURE: $0.25/h (maxUsdPerPodHour); "
        "GPU B SECURE: $0.30/h (maxUsdPerPodHour)). 2 offers match without `maxUsdPerPodHour: 0.2`: "
        "relax it in the stack file, or run it again later"
    )
    assert (fake.posts(), clock.t - start_s < 1) == ([], True)


def test_a_name_that_is_shown_is_no_id_and_that_is_told(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row("NVIDIA GeForce RTX 4090", 0.7)]
    with pytest.raises(NoCapacity, match=r"RTX 4090: no offer of it in SECURE.*1 offer matches without `gpuTypes: RTX"):
        runtime_of(fake, clock).pods.create(replace(SPEC, gpu_types=("RTX 4090",)))


def test_what_goes_into_the_state_is_small(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.gpus = [gpu_row(f"GPU {n:02}", 0.1 + n / 100, memory=24 - n % 2) for n in range(40)]
    fake.next("post_pod", *[lambda _: problem(400, CAPACITY + "x" * 300)] * 19)
    rented = runtime_of(fake, clock, rules=Rules(min_vram_gb=24)).pods.rent(replace(SPEC, gpu_types=()))
    assert len(rented.rejected) == 12
    assert max(map(len, rented.rejected)) <= 240


def test_without_a_catalogue_no_filter_is_blamed(fake: FakeRunpod, clock: FakeClock) -> None:
    fake.next("post_pod", *[NO_ROOM] * 2)
    fake.next("get_gpus", fake.do_get_gpus, *[lambda _: problem(503, "down")] * 99)
    with pytest.raises(NoCapacity) as caught:
        runtime_of(fake, clock).pods.create(SPEC)
    assert str(caught.value).endswith(f"could be rented: RunPod says 400: {CAPACITY} (request req-1)")


# Whatever happens


ANSWERS: dict[str, Callable[[FakeRunpod], Answer]] = {
    "ok": lambda fake: fake.do_post_pod,
    "old": lambda fake: _on_cuda(fake, "12.4"),
    "full": lambda _fake: NO_ROOM,
    "odd": lambda _fake: lambda _: problem(400, "what?"),
    "denied": lambda _fake: lambda _: problem(403, "access denied"),
    "lost": lambda _fake: lost,
    "lost but made": lambda fake: lambda request: (fake.do_post_pod(request), lost(request))[1],
    "broke": lambda _fake: BROKE,
}


@given(
    st.lists(st.sampled_from(sorted(ANSWERS)), max_size=8),
    st.sampled_from([0.2, 0.3, 9.0]),
    st.integers(1, 3),
    st.lists(st.sampled_from(["up", "down"]), max_size=3),
)
def test_whatever_is_answered_a_pod_is_returned_or_there_is_none_and_every_reservation_is_settled(
    answers: list[str], refuses_from: float, rounds: int, catalogue: list[str]
) -> None:
    fake, clock, purse = FakeRunpod(), FakeClock(), Purse(refuses_from)
    fake.gpus = [gpu_row(L4, 0.25), gpu_row(A5000, 0.3, dataCenters=[{"id": "EU-1"}, {"id": "EU-2"}])]
    fake.next("post_pod", *[ANSWERS[answer](fake) for answer in answers])
    down = [fake.do_get_gpus if each == "up" else (lambda _: problem(503, "down")) for each in catalogue]
    fake.next("get_gpus", *[answer for answer in down for _ in range(4)])
    spec = replace(SPEC, gpu_types=(L4, A5000))
    try:
        returned = [core_of(fake, clock, purse, rounds=rounds).create(spec).id]
    except PodfleetError:
        returned = []
    assert list(fake.pods) == returned
    told = [what for what, _ in purse.told if what != "refused"]
    assert told == ["reserved", "settled"] * (len(told) // 2)
    assert len(fake.posts()) == len(told) // 2
