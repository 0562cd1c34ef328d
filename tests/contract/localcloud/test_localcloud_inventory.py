"""What is free where, over the wire: creates consume it, the catalogue tells it; how a pod comes to run, or not."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, wait_until

A4000 = "NVIDIA RTX A4000"
L4 = "NVIDIA L4"
BODY = {"name": "x-slot-01", "image": "i", "gpu": {"id": A4000}}
Create = Callable[..., dict[str, Any]]


def row(center: str, free: int, **more: Any) -> dict[str, Any]:
    return {"data_center": center, "gpu": A4000, "free": free, **more}


def catalogue(api: httpx.Client, **filters: str) -> dict[str, Any]:
    params = {"include": "AVAILABILITY", "product": "POD", **filters}
    answer: dict[str, Any] = api.get(f"/v2/catalog/gpus/{A4000}", params=params).json()
    return answer


def words(shown: dict[str, Any]) -> dict[str, str]:
    return {center["id"]: center["availability"] for center in shown["dataCenters"]}


def test_creates_use_up_the_inventory_and_the_catalogue_tells_what_is_left(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(inventory=[row("US-KS-2", 1, usd_per_hr=0.31), row("EU-SE-1", 3), row("EU-RO-1", 0)])
    shown = catalogue(api)
    assert (shown["availability"], words(shown)) == (
        "MEDIUM",
        {"US-KS-2": "LOW", "EU-SE-1": "MEDIUM", "EU-RO-1": "NONE"},
    )
    assert shown["cudaVersions"] == [{"version": "12.8", "available": True}, {"version": "13.0", "available": True}]
    pod = create(dataCenterIds=["US-KS-2"])
    assert (pod["dataCenterId"], pod["cudaVersion"], pod["cost"]) == ("US-KS-2", "13.0", 0.31)
    assert words(catalogue(api))["US-KS-2"] == "NONE"
    full = api.post("/v2/pods", json={**BODY, "dataCenterIds": ["US-KS-2"]})
    assert (full.status_code, full.json()["detail"][:21]) == (400, "There are no longer a")
    api.delete(f"/v2/pods/{pod['id']}")
    assert words(catalogue(api))["US-KS-2"] == "LOW"
    assert catalogue(api, cloud="COMMUNITY")["availability"] == "NONE"
    assert cloud.control.get("/_emu/settings").json()["inventory"][0]["free"] == 1


def test_a_cuda_floor_and_an_exact_version_choose_among_hosts_of_one_data_centre(
    cloud: RunningCloud, create: Create, api: httpx.Client
) -> None:
    cloud.settings(inventory=[row("EU-SE-1", 1, cuda_version="12.4"), row("EU-SE-1", 1, cuda_version="12.8")])
    assert catalogue(api)["cudaVersions"] == [
        {"version": "12.4", "available": True},
        {"version": "12.8", "available": True},
    ]
    assert create(gpu={"id": A4000, "minCudaVersion": "12.6"})["cudaVersion"] == "12.8"
    assert catalogue(api, minCudaVersion="12.6")["availability"] == "NONE"
    assert catalogue(api, cudaVersions="12.4")["availability"] == "LOW"
    refused = api.post("/v2/pods", json={**BODY, "gpu": {"id": A4000, "allowedCudaVersions": ["12.8"]}})
    assert refused.status_code == 400
    assert create()["cudaVersion"] == "12.4"


def test_the_shorthand_gives_every_data_centre_the_same_gpus(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(stock={A4000: 2})
    assert set(words(catalogue(api)).values()) == {"LOW"}
    create(dataCenterIds=["US-KS-2"])
    create(cloud="COMMUNITY")
    assert set(words(catalogue(api)).values()) == {"NONE"}


@pytest.mark.parametrize("wrong", [row("MOON-1", 1), row("EU-SE-1", -1), row("EU-SE-1", 1, colour="red")])
def test_a_wrong_row_is_refused_and_changes_nothing(cloud: RunningCloud, wrong: dict[str, Any]) -> None:
    before = cloud.control.get("/_emu/settings").json()
    changes = {"inventory": [row("EU-SE-1", 1), wrong], "boot_s": 9.0, "stock": {L4: 1}}
    answer = cloud.control.patch("/_emu/settings", json=changes)
    assert answer.status_code == 422
    assert cloud.control.get("/_emu/settings").json() == before


def test_an_image_is_pulled_once_per_host(cloud: RunningCloud, create: Create) -> None:
    cloud.settings(images={"big/*": 4.0}, pull_gb_per_s=8.0, inventory=[row("EU-SE-1", 2), row("US-KS-2", 1)])
    boots_s, pulled = [], []
    for center in ("EU-SE-1", "EU-SE-1", "US-KS-2"):
        pod = create(image="big/image:1", dataCenterIds=[center])
        started = cloud.wait_for_event("pod.started", pod_id=pod["id"])
        boots_s.append(started["ts"] - cloud.ledger()["pods"][-1]["created_at"])
        log = (cloud.folder / "logs" / f"{pod['id']}.log").read_text("utf-8")
        pulled.append("system pulling image big/image:1" in log)
    assert pulled == [True, False, True]
    assert min(boots_s[0], boots_s[2]) >= 0.6


def test_a_host_with_an_older_cuda_than_the_image_wants_never_runs_it(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(image_cuda={"new/*": "12.8"})
    old, good = (create(image="new/image", name=name, dataCenterIds=[name]) for name in ("CA-MTL-3", "EU-RO-1"))
    stuck = cloud.wait_for_event("pod.stuck")
    assert stuck["pod_id"] == old["id"]
    assert stuck["detail"].endswith("nvidia-container-cli: unsatisfied condition: cuda>=12.8")
    cloud.wait_for_event("pod.started", pod_id=good["id"])
    shown = api.get(f"/v2/pods/{old['id']}").json()
    assert (shown["status"], shown["runtime"], shown["cost"]) == ("RUNNING", None, 0.25)
    with api.stream("GET", f"/v2/pods/{old['id']}/logs", params={"source": "system"}) as logs:
        assert any("unsatisfied condition" in line for line in logs.iter_lines())


def test_runtime_and_ports_are_shown_a_lag_after_the_start(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(runtime_lag_s=1.5)
    pod = create(ports=["22/tcp"])
    cloud.wait_for_event("pod.started", pod_id=pod["id"])
    early = api.get(f"/v2/pods/{pod['id']}").json()
    assert (early["status"], early["runtime"], early["ssh"]["direct"]) == ("RUNNING", None, None)
    wait_until(lambda: api.get(f"/v2/pods/{pod['id']}").json()["runtime"], what="runtime")
    assert api.get(f"/v2/pods/{pod['id']}").json()["ssh"]["direct"]["port"]


def test_without_credit_nothing_is_rented_and_at_zero_pods_end_or_with_a_volume_are_stopped(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    volume = api.post("/v2/network-volumes", json={"name": "v", "size": 10, "dataCenter": "EU-RO-1"}).json()
    plain = create(name="plain")
    kept = create(name="kept", mounts={"network": [{"volumeId": volume["id"], "path": "/v"}]})
    cloud.settings(balance_usd=0.2)
    poor = api.post("/v2/pods", json=BODY)
    assert (poor.status_code, poor.json()["detail"]) == (402, "Your account balance is too low to rent a pod")
    cloud.settings(balance_usd=0)
    assert cloud.wait_for_event("pod.ended")["reason"] == "balance"
    assert [(pod["id"], pod["status"]) for pod in cloud.live_pods()] == [(kept["id"], "EXITED")]
    assert cloud.ledger()["usd_per_hr"] == 0
    assert api.get(f"/v2/pods/{plain['id']}").status_code == 404
