"""Placement against the stand-in cloud's inventory: what is asked, what is rented, what is said where nothing fits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from localcloud.testing import RunningCloud, running
from podfleet.config import parse
from podfleet.errors import NoBalance, NoCapacity, RequestRejected
from podfleet.placement import Avoid, Rules
from podfleet.providers.runpod.client import Access, Patience, RunpodClient
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.prices import price_plan
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.providers.runpod.wire import GpuOffer, PodRequest, PodView

A4000, A5000, L4, H100 = "NVIDIA RTX A4000", "NVIDIA RTX A5000", "NVIDIA L4", "NVIDIA H100 80GB HBM3"
INVENTORY = [
    {"data_center": "EU-RO-1", "gpu": A5000, "cloud": "SECURE", "free": 1, "cuda_version": "12.8"},
    {"data_center": "US-KS-2", "gpu": A5000, "cloud": "COMMUNITY", "free": 2, "cuda_version": "13.0"},
    {"data_center": "CA-MTL-3", "gpu": A4000, "cloud": "SECURE", "free": 4, "cuda_version": "12.4"},
    {"data_center": "EU-RO-1", "gpu": A4000, "cloud": "SECURE", "free": 1, "cuda_version": "12.8"},
    {"data_center": "US-KS-2", "gpu": H100, "cloud": "SECURE", "free": 3, "cuda_version": "13.0"},
]
SPEC = RentSpec(
    name="podfleet-dev-slot-01-0badcafe",
    uid="dev-00000001",
    slot="slot-01",
    spec_hash="0badcafe",
    image="example/podfleet:1",
    gpu_types=(),
    cloud="SECURE",
    data_center_ids=(),
    min_cuda_version="12.8",
    disk_gb=10,
    ports=(),
)
Make = Callable[..., Runtime]


@pytest.fixture(scope="module")
def module_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    with running(
        tmp_path_factory.mktemp("cloud"), pod_command=["sleep", "600"], boot_s=60, stock_default=0, inventory=INVENTORY
    ) as cloud:
        yield cloud


class Forgets(RunpodClient):
    """As if the API took no notice of the floor."""

    def create_pod(self, request: PodRequest, *, before: Callable[[], None] | None = None) -> PodView:
        return super().create_pod(replace(request, min_cuda_version=""), before=before)

    def gpu_offers(self, *, cloud: str, min_cuda_version: str = "") -> tuple[GpuOffer, ...]:
        return super().gpu_offers(cloud=cloud)


@pytest.fixture
def make(cloud: RunningCloud) -> Iterator[Make]:
    """The provider's parts with tenths of seconds instead of ten."""
    clients: list[RunpodClient] = []

    def runtime(kind: type[RunpodClient] = RunpodClient, **more: Any) -> Runtime:
        quick = {"absence_interval_s": 0.2, "poll_interval_s": 0.1, "reconcile_s": 1.0, "drain_deadline_s": 1.0}
        quick |= {"create_rounds": 1, "create_round_wait_s": 0.4}
        access = Access(cloud.runpod_url, cloud.api_key)
        clients.append(kind(access, patience=Patience(read_attempts=2, retry_wait_s=0.05)))
        settings = ProviderSettings(api_key=cloud.api_key, base_url=cloud.runpod_url, **{**quick, **more})
        return build(settings, clients[-1], NoEngine(), RealClock())

    yield runtime
    for client in clients:
        client.close()


def slot(number: int, **more: Any) -> RentSpec:
    return replace(SPEC, name=f"podfleet-dev-slot-0{number}-0badcafe", slot=f"slot-0{number}", **more)


def places(cloud: RunningCloud) -> list[tuple[str, str, str]]:
    return sorted((pod["gpu"]["id"], pod["cloud"], pod["dataCenterId"]) for pod in cloud.live_pods())


def posts(cloud: RunningCloud, since: int) -> int:
    return sum(event["op"] == "pods.create" for event in cloud.events("request", since))


def test_the_best_offers_are_rented_first_until_they_are_gone(cloud: RunningCloud, make: Make) -> None:
    pods = make().pods
    rented = [pods.rent(slot(number, cloud="ALL")) for number in range(1, 6)]
    assert [each.candidate.split(",")[0] for each in rented] == [
        f"{A5000} COMMUNITY at $0.16/h",
        f"{A5000} COMMUNITY at $0.16/h",
        f"{A5000} SECURE at $0.27/h",
        f"{A4000} SECURE at $0.25/h",
        f"{H100} SECURE at $3.29/h",
    ]
    assert places(cloud) == [
        (H100, "SECURE", "US-KS-2"),
        (A4000, "SECURE", "EU-RO-1"),
        (A5000, "COMMUNITY", "US-KS-2"),
        (A5000, "COMMUNITY", "US-KS-2"),
        (A5000, "SECURE", "EU-RO-1"),
    ]
    assert rented[0].pod.cost_usd_per_hr == pytest.approx(0.16)


def test_what_is_sold_out_costs_no_request(cloud: RunningCloud, make: Make) -> None:
    since = cloud.last_seq()
    make().pods.create(SPEC)
    assert posts(cloud, since) == 1, "of the five offers only one is asked"


def test_the_wishes_memory_price_and_place_are_kept(cloud: RunningCloud, make: Make) -> None:
    make(rules=Rules(min_vram_gb=40)).pods.create(slot(1))
    make(rules=Rules(max_usd_per_hr=0.26)).pods.create(slot(2))
    make().pods.create(slot(3, cloud="ALL", data_center_ids=("US-KS-2",)))
    make(rules=Rules(blocked=(A5000,))).pods.create(slot(4, cloud="ALL"))
    found = {pod["name"][13:20]: (pod["gpu"]["id"], pod["dataCenterId"]) for pod in cloud.live_pods()}
    assert found == {
        "slot-01": (H100, "US-KS-2"),
        "slot-02": (A4000, "EU-RO-1"),
        "slot-03": (A5000, "US-KS-2"),
        "slot-04": (H100, "US-KS-2"),
    }


def test_a_host_that_failed_is_not_asked_for_again(cloud: RunningCloud, make: Make) -> None:
    bad = (Avoid(A5000, "COMMUNITY", "US-KS-2"), Avoid(A5000, "SECURE", "EU-RO-1"), Avoid(A4000, "SECURE", "EU-RO-1"))
    rented = make(avoid=bad).pods.rent(replace(SPEC, cloud="ALL"))
    assert places(cloud) == [(H100, "SECURE", "US-KS-2")]
    assert f"{A5000} SECURE EU-RO-1: failed at boot (avoid)" in rented.rejected


def test_where_no_offer_fits_the_binding_filters_are_named_with_their_offers(cloud: RunningCloud, make: Make) -> None:
    since = cloud.last_seq()
    with pytest.raises(NoCapacity) as caught:
        make(rules=Rules(max_usd_per_hr=0.2)).pods.create(SPEC)
    assert "no offer fits" in str(caught.value)
    assert "3 offers match without `maxUsdPerPodHour: 0.2`; 1 matches without `cloud: SECURE`" in str(caught.value)
    with pytest.raises(
        NoCapacity, match=r"1 offer matches without `gpuTypes: .*`; 1 matches without `minCudaVersion: 13.0`"
    ):
        make().pods.create(replace(SPEC, gpu_types=(A4000,), min_cuda_version="13.0"))
    assert posts(cloud, since) == 1, "a type that was asked for by name is asked for all the same"
    assert cloud.live_pods() == []


def test_a_later_round_finds_what_was_not_there(cloud: RunningCloud, make: Make) -> None:
    cloud.settings(stock={L4: 0})
    back = threading.Timer(0.3, lambda: cloud.settings(stock={L4: 1}))
    back.start()
    try:
        pod = make(create_rounds=20).pods.create(replace(SPEC, gpu_types=(L4,)))
        assert pod.gpu == L4
    finally:
        back.join()
        cloud.settings(stock={L4: 0})


def test_capacity_that_flaps_is_asked_again(cloud: RunningCloud, make: Make) -> None:
    cloud.fault_kind("capacity-flap", times=2, probability=1.0)
    since = cloud.last_seq()
    rented = make(create_rounds=4).pods.rent(replace(SPEC, gpu_types=(H100,)))
    assert (rented.pod.gpu, len(cloud.live_pods()), posts(cloud, since)) == (H100, 1, 3)


def test_a_catalogue_that_is_down_leaves_the_stacks_own_list(cloud: RunningCloud, make: Make) -> None:
    cloud.fault("catalog.gpus", "status", status=503, times=100)
    rented = make().pods.rent(replace(SPEC, gpu_types=(L4, H100)))
    assert rented.candidate.startswith(f"{H100} SECURE at $3.29/h")
    assert rented.rejected[0].startswith(f"{L4} SECURE: RunPod says 400: There are no longer any instances")


def test_a_host_below_the_floor_is_left_with_proof(cloud: RunningCloud, make: Make) -> None:
    make().pods.create(slot(2, gpu_types=(A4000,)))  # the only one on a newer driver
    rented = make(Forgets).pods.rent(replace(SPEC, gpu_types=(A4000, H100)))
    assert places(cloud) == [(H100, "SECURE", "US-KS-2"), (A4000, "SECURE", "EU-RO-1")]
    old = [pod for pod in cloud.pods() if pod["status"] == "TERMINATED"]
    assert {pod["cudaVersion"] for pod in old} == {"12.4"}
    assert rented.rejected[0] == f"{A4000} SECURE: driver too old: the host has CUDA 12.4, wanted is 12.8"


def test_a_pool_that_is_not_allowed_is_skipped_and_an_odd_refusal_is_told(cloud: RunningCloud, make: Make) -> None:
    cloud.fault("pods.create", "status", status=403, detail="access denied")
    rented = make().pods.rent(SPEC)
    assert rented.rejected[0].startswith(f"{A5000} SECURE: RunPod says 403: access denied (request ")
    cloud.fault("pods.create", "status", status=400, detail="the moon is in the wrong house", times=100)
    with pytest.raises(RequestRejected, match=r"moon is in the wrong house \(request "):
        make(create_rounds=3).pods.create(slot(2))


def test_no_balance_stops_the_creates_that_wait(cloud: RunningCloud, make: Make) -> None:
    runtime, errors = make(create_rounds=20, create_round_wait_s=20.0), []

    def waits() -> None:
        try:
            runtime.pods.create(replace(SPEC, gpu_types=(L4,)))
        except NoBalance as error:
            errors.append(str(error))

    since = cloud.last_seq()
    waiting = threading.Thread(target=waits)
    waiting.start()
    cloud.wait_for_event("request", since=since, op="pods.create", status=400)
    cloud.fault("pods.create", "status", status=402, times=100)
    with pytest.raises(NoBalance) as caught:
        runtime.pods.create(slot(2))
    waiting.join(5)
    assert errors == [str(caught.value)]
    assert posts(cloud, since) == 2


def test_a_plan_has_the_price_of_what_is_then_rented(cloud: RunningCloud, make: Make) -> None:
    values = {"uid": "dev-00000001", "bootstrap": "none", "image": "x", "queueUrl": "http://127.0.0.1:1"}
    config = parse({**values, "cloud": "ALL", "runpodUrl": cloud.runpod_url, "maxUsdPerHour": "0"}, stack="dev")
    access = Access(cloud.runpod_url, cloud.api_key)
    plan = price_plan(config, ["slot-01"], prefix="podfleet-dev-", access=access)
    assert str(plan) == (
        f"$0.00/h now → $0.16/h then (0 → 1 pods, new ones on {A5000} COMMUNITY at $0.16/h (offers: $0.16 to $3.29/h), "
        "$0.053 per hour of audio (the engine does not use the GPU); at most $9.87/h with 3 pods)"
    )
    assert make().pods.create(replace(SPEC, cloud="ALL")).cost_usd_per_hr == pytest.approx(0.16)
