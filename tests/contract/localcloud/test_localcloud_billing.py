"""Billing history over the wire: the same dollars as the ledger's."""

import math
from collections.abc import Callable
from typing import Any

import httpx

from localcloud.testing import RunningCloud, wait_until

A4000 = "NVIDIA RTX A4000"
Create = Callable[..., dict[str, Any]]


def test_a_pod_s_history_is_its_bill_also_after_its_end(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    gpu, cpu = create(name="gpu"), api.post("/v2/pods", json=CPU_POD).raise_for_status().json()
    wait_until(lambda: cloud.ledger()["total_usd"] > 0, what="a charge")
    for pod in (gpu, cpu):
        api.delete(f"/v2/pods/{pod['id']}")
    bills = {line["id"]: line["usd"] for line in cloud.ledger()["pods"]}
    answer = api.get("/v2/billing/pods", params={"bucketSize": "hour", "lastN": 2}).json()
    records, metadata = answer["records"], answer["metadata"]
    for pod, kind in ((gpu, "gpuAmount"), (cpu, "cpuAmount")):
        mine = [record for record in records if record["podId"] == pod["id"]]
        assert math.isclose(sum(record[kind] for record in mine), bills[pod["id"]], rel_tol=1e-9)
        assert all(record["totalAmount"] == record[kind] for record in mine)
    assert math.isclose(metadata["totals"]["totalAmount"], cloud.ledger()["total_usd"], rel_tol=1e-9)
    assert (metadata["recordCount"], metadata["uniquePodCount"]) == (len(records), 2)
    only = api.get("/v2/billing/pods", params={"podId": gpu["id"]}).json()
    assert {record["podId"] for record in only["records"]} == {gpu["id"]}
    assert only["metadata"]["query"]["podId"] == gpu["id"]
    assert api.get("/v2/billing/pods", params={"podId": "nobody"}).json()["records"] == []


CPU_POD = {"name": "cpu", "image": "i", "cpu": {"id": "cpu3c", "vcpuCount": 2}}


def test_the_whole_is_the_pods_and_the_volumes(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    pod = create()
    body = {"name": "v", "size": 4000, "dataCenter": "EU-RO-1"}
    volume = api.post("/v2/network-volumes", json=body).raise_for_status().json()
    fast = api.post("/v2/network-volumes", json={**body, "type": "HIGH_PERFORMANCE"}).raise_for_status().json()
    for path in (f"pods/{pod['id']}", f"network-volumes/{volume['id']}", f"network-volumes/{fast['id']}"):
        api.delete(f"/v2/{path}").raise_for_status()

    def totals(path: str) -> dict[str, float]:
        found: dict[str, float] = api.get(f"/v2/billing{path}").json()["metadata"]["totals"]
        return found

    pods, volumes, whole = totals("/pods"), totals("/network-volumes"), totals("")
    assert whole["podGpuAmount"] == pods["gpuAmount"] > 0
    assert whole["storageStandardAmount"] == volumes["standardAmount"] > 0
    assert whole["storageHighPerformanceAmount"] == volumes["highPerformanceAmount"] > 0
    assert math.isclose(whole["totalAmount"], pods["totalAmount"] + volumes["totalAmount"], rel_tol=1e-9)
    spent = 25.0 - cloud.ledger()["balance_usd"]
    assert math.isclose(whole["totalAmount"], spent, rel_tol=1e-6)
    named = api.get("/v2/billing/network-volumes", params={"networkVolumeId": volume["id"]}).json()
    assert named["metadata"]["uniqueNetworkVolumeCount"] == 1


def test_a_window_before_the_first_pod_is_empty_and_a_wrong_one_named(api: httpx.Client, create: Create) -> None:
    create()
    past = {"startTime": "2020-01-01T00:00:00Z", "endTime": "2020-02-01T00:00:00Z"}
    answer = api.get("/v2/billing/pods", params=past).json()
    assert (answer["records"], answer["metadata"]["totals"]["totalAmount"]) == ([], 0)
    assert answer["metadata"]["query"] == {**past, "bucketSize": "day"}
    wrong = api.get("/v2/billing/pods", params={"startTime": "yesterday"})
    assert (wrong.status_code, wrong.json()["errors"]) == (422, ["startTime: must be RFC 3339"])
