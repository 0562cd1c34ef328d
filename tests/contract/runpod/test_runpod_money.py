"""Money and what costs it, against the stand-in cloud: the spend guard, bills, balance; logins and volumes of pods."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from localcloud.testing import RunningCloud, wait_until
from podfleet.errors import NoBalance, ProviderError, RequestRejected, SpendLimit
from podfleet.podspec import registry_name, secret_name
from podfleet.providers.runpod.client import RunpodClient
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.fleet import Wish
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.spend_rules import SpendLimits
from podfleet.providers.runpod.volumes import VolumeWish

UID, PREFIX, L4, A4000 = "dev-00000001", "podfleet-dev-", "NVIDIA L4", "NVIDIA RTX A4000"
SPEC = RentSpec(
    name=f"{PREFIX}slot-01-0badcafe",
    uid=UID,
    slot="slot-01",
    spec_hash="0badcafe",
    image="example/podfleet:1",
    gpu_types=(L4,),
    cloud="SECURE",
    data_center_ids=(),
    min_cuda_version="",
    disk_gb=10,
    ports=(),
)
VOLUME = VolumeWish(secret_name("podfleet", "dev", UID, "models"), 50, "EU-RO-1", "STANDARD")
Make = Callable[..., Runtime]


def spec(slot: int, **more: object) -> RentSpec:
    return replace(SPEC, name=f"{PREFIX}slot-{slot:02}-0badcafe", slot=f"slot-{slot:02}", **more)  # type: ignore[arg-type]


def rent_all(runtimes: list[Runtime], slots: range) -> list[BaseException | None]:
    """All at the same time, each slot by one of the runtimes."""

    def rent(slot: int) -> BaseException | None:
        try:
            runtimes[slot % len(runtimes)].pods.create(spec(slot))
        except ProviderError as error:
            return error
        return None

    with ThreadPoolExecutor(len(slots)) as workers:
        return list(workers.map(rent, slots))


# The spend guard


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        (SpendLimits(max_pods=3), "maxPods"),
        (SpendLimits(max_usd_per_hour=1.5), "maxUsdPerHour"),
        (SpendLimits(max_usd_per_day=1.5), "maxUsdPerDay"),
    ],
)
def test_of_ten_pods_at_once_only_those_within_the_limit_are_rented(
    cloud: RunningCloud, provider: Make, limits: SpendLimits, key: str
) -> None:
    errors = [error for error in rent_all([provider(limits=limits)], range(1, 11)) if error]
    assert len(cloud.live_pods()) == 3  # of $0.49 each
    assert len(errors) == 7
    for error in errors:
        assert f"podfleet:{key}" in str(error)
        assert "\n" not in str(error)


def test_two_processes_of_a_checkout_do_not_exceed_a_limit_together(
    cloud: RunningCloud, provider: Make, tmp_path: Path
) -> None:
    pair = [provider(limits=SpendLimits(max_pods=3), state_dir=str(tmp_path)) for _ in range(2)]
    rent_all(pair, range(1, 9))
    assert len(cloud.live_pods()) == 3


@pytest.mark.parametrize("action", ["status", "drop"])
def test_a_pod_whose_create_was_not_answered_counts(cloud: RunningCloud, provider: Make, action: str) -> None:
    cloud.fault("pods.create", action, "after", status=500)
    runtime = provider(limits=SpendLimits(max_pods=1))
    runtime.pods.create(spec(1))
    with pytest.raises(SpendLimit, match="podfleet:maxPods is 1"):
        runtime.pods.create(spec(2))
    assert len(cloud.live_pods()) == 1


def test_a_pod_that_lists_do_not_show_yet_counts(cloud: RunningCloud, provider: Make) -> None:
    cloud.fault_kind("create-hidden", delay_s=3.0)
    runtime = provider(limits=SpendLimits(max_pods=1))
    runtime.pods.create(spec(1))
    time.sleep(1.0)
    with pytest.raises(SpendLimit):
        runtime.pods.create(spec(2))
    assert len(cloud.live_pods()) == 1


def test_who_was_refused_may_rent_when_another_has_ended(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider(limits=SpendLimits(max_pods=1))
    first = runtime.pods.create(spec(1))
    with pytest.raises(SpendLimit):
        runtime.pods.create(spec(2))
    runtime.pods.delete(first.id, uid=UID)
    assert runtime.pods.create(spec(2)).id in {pod["id"] for pod in cloud.live_pods()}


def test_a_cheaper_gpu_is_taken_where_the_first_is_too_dear(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider(limits=SpendLimits(max_usd_per_hour=0.3))
    assert runtime.pods.create(spec(1, gpu_types=(L4, A4000))).gpu == A4000


def test_the_day_knows_what_ended_pods_were_billed(cloud: RunningCloud, client: RunpodClient, provider: Make) -> None:
    runtime = provider()
    pod = runtime.pods.create(spec(1))
    time.sleep(1.5)
    runtime.pods.delete(pod.id, uid=UID)
    bills = wait_until(lambda: client.pod_billing(start_s=time.time() - 3600, end_s=time.time()))
    assert {bill.pod_id for bill in bills} == {pod.id}
    spent = sum(bill.usd for bill in bills)
    assert spent > 0
    another = provider(limits=SpendLimits(max_usd_per_day=0.49 + spent / 2))  # another checkout: no journal
    with pytest.raises(ProviderError, match="maxUsdPerDay"):
        another.pods.create(spec(2))
    assert cloud.live_pods() == []
    provider(limits=SpendLimits(max_usd_per_day=0.50)).pods.create(spec(2))


def test_without_bills_the_limit_of_an_hour_holds_and_pods_are_rented(cloud: RunningCloud, provider: Make) -> None:
    cloud.fault("billing", "status", status=403, times=0)
    runtime = provider(limits=SpendLimits(max_usd_per_hour=0.6, max_usd_per_day=50))
    runtime.pods.create(spec(1))
    with pytest.raises(ProviderError, match="maxUsdPerHour"):
        runtime.pods.create(spec(2))


# The balance


def test_the_balance_and_its_end(cloud: RunningCloud, client: RunpodClient) -> None:
    found = client.balance()
    assert found is not None
    assert found.usd > 20
    cloud.settings(graphql="gone")
    assert client.balance() is None
    cloud.settings(graphql="on")
    cloud.fault_kind("graphql-410")
    assert client.balance() is None


def test_no_balance_stops_all_with_one_sentence(cloud: RunningCloud, provider: Make) -> None:
    cloud.settings(balance_usd=0.1)
    try:
        runtime = provider()
        errors = rent_all([runtime], range(1, 4))
        assert {type(error) for error in errors} == {NoBalance}
        with pytest.raises(NoBalance, match="nothing was rented; top up the account"):
            runtime.pods.create(spec(9))
    finally:
        cloud.settings(balance_usd=25.0)


# Logins and volumes


def test_a_pod_with_login_and_volume_is_rented_where_the_volume_is(
    cloud: RunningCloud, client: RunpodClient, provider: Make
) -> None:
    runtime = provider()
    name = registry_name("podfleet", "dev", UID, username="me", password="CANARY")
    registry_id, volume = runtime.registries.create(name, "me", "CANARY"), runtime.volumes.create(VOLUME)
    place = {"data_center_ids": (VOLUME.data_center_id,), "registry_id": registry_id}
    pod = runtime.pods.create(spec(1, **place, volume_id=volume.id, volume_path="/models"))
    assert pod.data_center_id == VOLUME.data_center_id
    with cloud.client() as http:
        told = http.get(f"/v2/pods/{pod.id}").json()
    assert told["registry"] == registry_id
    assert told["mounts"]["network"] == [{"volumeId": volume.id, "path": "/models"}]
    assert "CANARY" not in str(told)
    # Another login: the new one first; the pod keeps the old one, and at last all goes.
    other = registry_name("podfleet", "dev", UID, username="me", password="new")
    runtime.registries.create(other, "me", "new")
    runtime.registries.delete(registry_id)
    assert [each["id"] for each in cloud.live_pods()] == [pod.id]
    runtime.guard.delete(UID, PREFIX)
    runtime.volumes.delete(volume.id)
    runtime.leftovers.remove(UID, PREFIX)
    assert (client.list_registries(), client.list_volumes(), cloud.live_pods()) == ((), (), [])


def test_a_volume_that_a_pod_still_holds_is_waited_for(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider()
    volume = runtime.volumes.create(VOLUME)
    place = {"data_center_ids": (VOLUME.data_center_id,), "volume_id": volume.id, "volume_path": "/models"}
    pod = runtime.pods.create(spec(1, **place))
    ending = threading.Timer(1.0, runtime.client.delete_pod, [pod.id])
    ending.start()
    runtime.volumes.delete(volume.id)
    ending.join()
    assert runtime.volumes.read(volume.id) is None


def test_a_volume_grows_and_does_not_shrink(cloud: RunningCloud, client: RunpodClient, provider: Make) -> None:
    runtime = provider()
    volume = runtime.volumes.create(VOLUME)
    assert runtime.volumes.create(VOLUME) == volume
    assert runtime.volumes.grow(volume.id, replace(VOLUME, size_gb=80)).size_gb == 80
    with pytest.raises(RequestRejected, match="400"):
        client.update_volume(volume.id, size_gb=20)
    assert [each.size_gb for each in client.list_volumes()] == [80]


def test_a_place_without_such_a_volume_is_told(provider: Make) -> None:
    with pytest.raises(RequestRejected, match=r"400.*CA-MTL-3"):
        provider().volumes.create(replace(VOLUME, data_center_id="CA-MTL-3"))


FAULTS = [
    ("after", "drop", {}),
    ("before", "drop", {}),
    ("after", "status", {"status": 500}),
    ("before", "status", {"status": 502}),
    ("after", "html", {"status": 502}),
]


@pytest.mark.parametrize(("phase", "action", "more"), FAULTS)
@pytest.mark.parametrize("kind", ["registries", "volumes"])
def test_an_unclear_create_leaves_one_after_the_next_run_and_none_after_the_end(
    cloud: RunningCloud, client: RunpodClient, provider: Make, kind: str, phase: str, action: str, more: dict[str, int]
) -> None:
    runtime = provider()
    name = registry_name("podfleet", "dev", UID, username="me", password="CANARY")

    def make() -> None:
        if kind == "registries":
            runtime.registries.create(name, "me", "CANARY")
        else:
            runtime.volumes.create(VOLUME)

    fault = cloud.fault(f"{kind}.create", action, phase, **more)
    if phase == "after":
        make()
    else:
        with pytest.raises(ProviderError) as caught:
            make()
        assert "CANARY" not in str(caught.value)
        make()
    cloud.wait_for_hit(fault)
    assert len(client.list_registries()) + len(client.list_volumes()) == 1
    runtime.leftovers.remove(UID, PREFIX)
    assert len(client.list_registries()) + len(client.list_volumes()) == 0


def test_what_is_left_goes_and_what_is_not_ours_stays(client: RunpodClient, provider: Make) -> None:
    runtime = provider()
    runtime.volumes.create(VOLUME)
    runtime.secrets.put(secret_name("podfleet", "dev", UID, "tailnet"), "x", "d")
    client.create_volume("episodes", size_gb=10, data_center_id="EU-RO-1", type_="STANDARD")
    client.create_registry("podfleet-dev-mine", "u", "p")
    runtime.guard.update(Wish(UID, PREFIX, ()), generation="g", expected="g")
    runtime.leftovers.remove(UID, PREFIX)
    assert [each.name for each in client.list_volumes()] == ["episodes"]
    assert [each.name for each in client.list_registries()] == ["podfleet-dev-mine"]
    assert client.list_secrets() == ()
