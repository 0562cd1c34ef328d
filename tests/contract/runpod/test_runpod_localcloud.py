"""Client and core against the stand-in cloud, its faults included."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from localcloud.testing import RunningCloud, wait_until
from podfleet.errors import AuthError, NoBalance, NoCapacity, OtherFleetFound, PodFailed, RequestRejected
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.drain import Drain
from podfleet.providers.runpod.fleet import Wish
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.wire import PodRequest

UID, PREFIX, GPU = "dev-00000001", "podfleet-dev-", "NVIDIA L4"
Make = Callable[..., Runtime]


def spec(slot: int = 1, *, key: str = "", gpus: tuple[str, ...] = (GPU,)) -> RentSpec:
    return RentSpec(
        name=f"{PREFIX}slot-{slot:02}-0badcafe",
        uid=UID,
        slot=f"slot-{slot:02}",
        spec_hash="0badcafe",
        image="example/podfleet:1",
        gpu_types=gpus,
        cloud="SECURE",
        data_center_ids=(),
        min_cuda_version="12.4",
        disk_gb=10,
        ports=("22/tcp",),
        env={"PUBLIC_KEY": key} if key else {},
    )


def request(name: str = "n") -> PodRequest:
    return PodRequest(name, "img", GPU, "SECURE", None, "12.4", 10, ("22/tcp",), {"PODFLEET_UID": UID})


def live(cloud: RunningCloud) -> list[str]:
    return sorted(pod["name"] for pod in cloud.live_pods())


# The client


def test_create_list_and_end(cloud: RunningCloud, client: RunpodClient) -> None:
    pods = [client.create_pod(request(f"n{n}")) for n in range(5)]
    assert pods[0].status == "PROVISIONING"
    assert pods[0].gpu == GPU
    assert pods[0].cost_usd_per_hr == 0.49
    assert abs(pods[0].created_at_s - time.time()) < 60
    listed = client.list_pods()  # three pages
    assert {pod.id for pod in listed} == {pod.id for pod in pods}
    assert {pod.uid for pod in listed} == {UID}
    assert client.delete_pod(pods[0].id)
    assert not client.delete_pod(pods[0].id)


def test_a_running_pod_has_an_address_and_a_log(cloud: RunningCloud, client: RunpodClient) -> None:
    pod = client.create_pod(request())
    found = wait_until(lambda: next((p for p in client.list_pods() if p.ssh), None))
    assert found.status == "RUNNING"
    assert found.ssh is not None
    assert found.ssh.host == "127.0.0.1"
    lines = wait_until(lambda: client.pod_logs(pod.id))
    assert lines[0].text.startswith("podfleet-node host-key ssh-ed25519 ")
    assert client.pod_logs(pod.id, source="system")


def test_the_catalogue_has_prices(client: RunpodClient) -> None:
    offers = {offer.gpu: offer for offer in client.gpu_offers(cloud="SECURE", min_cuda_version="12.4")}
    assert offers[GPU].usd_per_hr == 0.49
    assert GPU not in {offer.gpu for offer in client.gpu_offers(cloud="COMMUNITY")}


def test_a_wrong_key_is_told(cloud: RunningCloud) -> None:
    client = RunpodClient(Access(cloud.runpod_url, "rpa_wrong"))
    with pytest.raises(AuthError, match="RUNPOD_API_KEY") as caught:
        client.list_pods()
    client.close()
    assert "rpa_wrong" not in str(caught.value)


def test_no_balance_and_no_stock(cloud: RunningCloud, client: RunpodClient) -> None:
    cloud.settings(stock={GPU: 0})
    with pytest.raises(NoCapacity):
        client.create_pod(request())
    cloud.fault("pods.create", "status", status=402, detail="Your account balance is too low to rent a pod")
    with pytest.raises(NoBalance):
        client.create_pod(request())


def test_a_request_that_breaks_the_contract_is_told_with_its_id(client: RunpodClient) -> None:
    with pytest.raises(RequestRejected, match=r"422.*\(request ") as caught:
        client.create_pod(replace(request(), disk_gb=0))
    assert caught.value.request_id


def test_429_is_waited_for(cloud: RunningCloud, client: RunpodClient) -> None:
    cloud.fault("pods.create", "status", status=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    client.create_pod(request())
    assert time.monotonic() - started >= 1
    assert len(cloud.live_pods()) == 1


def test_secrets(cloud: RunningCloud, client: RunpodClient, provider: Make) -> None:
    secrets = provider().secrets
    secret_id = secrets.put("podfleet-dev-tailnet", "tskey-1", "d")
    assert secrets.put("podfleet-dev-tailnet", "tskey-2", "d") == secret_id
    assert secrets.exists(secret_id, "podfleet-dev-tailnet")
    cloud.fault("secrets.create", "drop", "after")
    other = secrets.put("podfleet-dev-other", "x", "d")
    for each in (secret_id, other, other):
        secrets.delete(each)
    assert client.find_secret("podfleet-dev-tailnet") is None


# Renting


@pytest.mark.parametrize(
    ("phase", "action", "more"),
    [
        ("after", "drop", {}),
        ("before", "drop", {}),
        ("after", "status", {"status": 500, "detail": "Something went wrong."}),
        ("before", "status", {"status": 502, "detail": "bad gateway"}),
        ("after", "delay", {"delay_s": 4.0}),
    ],
)
def test_a_create_without_an_answer_leaves_exactly_one_pod(
    cloud: RunningCloud, provider: Make, phase: str, action: str, more: dict[str, object]
) -> None:
    cloud.fault("pods.create", action, phase, **more)
    pod = provider().pods.create(spec(gpus=(GPU, "NVIDIA RTX A4000")))
    assert [each["id"] for each in cloud.live_pods()] == [pod.id]


def test_two_pods_of_one_name_become_one(cloud: RunningCloud, client: RunpodClient, provider: Make) -> None:
    env = {"PODFLEET_UID": UID, "PODFLEET_SPEC_HASH": "0badcafe"}
    first = client.create_pod(replace(request(spec().name), env=env))
    client.create_pod(replace(request(spec().name), env=env))
    assert provider().pods.create(spec()).id == first.id
    assert [each["id"] for each in cloud.live_pods()] == [first.id]


def test_a_full_gpu_type_is_passed_over(cloud: RunningCloud, provider: Make) -> None:
    cloud.settings(stock={GPU: 0})
    assert provider().pods.create(spec(gpus=(GPU, "NVIDIA RTX A4000"))).gpu == "NVIDIA RTX A4000"
    with pytest.raises(NoCapacity, match="none of 1 candidates"):
        provider().pods.create(spec(2))
    cloud.settings(stock={GPU: 8})


def test_the_end_of_a_pod_is_proven(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider()
    pod = runtime.pods.create(spec())
    runtime.pods.delete(pod.id, uid=UID)
    assert cloud.live_pods() == []
    assert runtime.pods.read(pod.id) is None
    runtime.pods.delete(pod.id, uid=UID)


def test_many_pods_end_in_one_go_with_few_lists(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider(absence_interval_s=0.5)
    for slot in range(1, 7):
        runtime.pods.create(spec(slot))
    seen = len(cloud.events("request"))
    with ThreadPoolExecutor(4) as workers:  # as the stock launcher
        list(workers.map(lambda pod: runtime.pods.delete(pod["id"], uid=UID), cloud.live_pods()))
    assert cloud.live_pods() == []
    lists = [event for event in cloud.events("request")[seen:] if event["op"] == "pods.list"]
    assert len(lists) <= 4 * 8  # pages included


def test_guard_and_sweep(cloud: RunningCloud, provider: Make) -> None:
    runtime = provider()
    pods = [runtime.pods.create(spec(slot)) for slot in (1, 2, 3)]
    with pytest.raises(OtherFleetFound):
        runtime.guard.create(Wish(UID, PREFIX, ()), adopt=False)
    assert len(live(cloud)) == 3
    runtime.guard.update(Wish(UID, PREFIX, (spec(1).name, spec(2).name)), generation="g", expected="g")
    assert live(cloud) == [spec(1).name, spec(2).name]
    runtime.sweep.sweep(Wish(UID, PREFIX, (spec(1).name,)), pods=[pods[1].id])
    assert len(live(cloud)) == 2
    runtime.sweep.sweep(Wish(UID, PREFIX, (spec(1).name,)), pods=[pods[0].id])
    assert live(cloud) == [spec(1).name]
    runtime.guard.delete(UID, PREFIX)
    assert live(cloud) == []


# Waiting and draining by SSH


def test_reachable_and_drained_over_ssh(cloud: RunningCloud, provider: Make, ssh_key: tuple[str, str]) -> None:
    runtime = provider()
    pod = runtime.pods.create(spec(key=ssh_key[1]))
    way = runtime.reachable.wait(pod.id, deadline_s=20)
    assert way.host_key.startswith("ssh-ed25519 ")
    cloud.wait_for_event("pod.started", pod_id=pod.id)
    runtime.pods.delete(pod.id, uid=UID)
    (told,) = cloud.events("ssh.exec")
    assert told["pod_id"] == pod.id
    assert told["command"].startswith("podfleet-node drain --deadline-s ")


def test_a_pod_that_shows_another_host_key_is_not_told(
    cloud: RunningCloud, client: RunpodClient, provider: Make, ssh_key: tuple[str, str]
) -> None:
    cloud.settings(ssh_impostor_names=[spec().name])
    runtime = provider()
    pod = runtime.pods.create(spec(key=ssh_key[1]))
    runtime.reachable.wait(pod.id, deadline_s=20)
    listed = [each for each in client.list_pods() if each.id == pod.id]
    drain = Drain(lambda pod_id, tail: client.pod_logs(pod_id, tail=tail), private_key=ssh_key[0], deadline_s=5)
    (outcome,) = wait_until(lambda: [each for each in drain.run(listed) if "refused" not in each.text.lower()])
    assert not outcome.told
    assert "host key" in outcome.text.lower()
    assert cloud.events("ssh.exec") == []
    cloud.settings(ssh_impostor_names=[])


def test_a_pod_that_never_boots_is_late_and_holds_up_no_end(cloud: RunningCloud, provider: Make) -> None:
    cloud.settings(boot_s=600)
    try:
        runtime = provider(drain_deadline_s=60.0)
        pod = runtime.pods.create(spec())
        with pytest.raises(PodFailed, match="PROVISIONING"):
            runtime.reachable.wait(pod.id, deadline_s=0.5)
        started = time.monotonic()
        runtime.pods.delete(pod.id, uid=UID)
        assert time.monotonic() - started < 5
    finally:
        cloud.settings(boot_s=0.2)
