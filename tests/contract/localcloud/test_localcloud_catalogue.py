"""The catalogue's other pages: data centres with their stock, CPU flavours; GPU queries that do not fit."""

from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud

A4000, A5000 = "NVIDIA RTX A4000", "NVIDIA RTX A5000"


def centers(api: httpx.Client, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/v2/catalog/datacenters", params=params).json()["dataCenters"]
    return found


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ({}, ["EU-RO-1", "EU-SE-1", "US-KS-2", "CA-MTL-3"]),
        ({"regions": "EUROPE"}, ["EU-RO-1", "EU-SE-1"]),
        ({"regions": "EUROPE,NORTH_AMERICA"}, ["EU-RO-1", "EU-SE-1", "US-KS-2", "CA-MTL-3"]),
        ({"networkVolumeTypes": "STANDARD,HIGH_PERFORMANCE"}, ["EU-RO-1", "US-KS-2"]),
        ({"globalNetwork": "false"}, ["EU-SE-1", "CA-MTL-3"]),
        ({"compliance": "GDPR", "networkVolumeTypes": "HIGH_PERFORMANCE"}, ["EU-RO-1"]),
        ({"compliance": "GDPR,HIPAA"}, []),
        ({"name": "EU-RO-1"}, ["EU-RO-1", "EU-SE-1", "US-KS-2", "CA-MTL-3"]),  # unknown parameters are ignored
    ],
)
def test_filters_of_data_centres_must_all_fit(api: httpx.Client, params: dict[str, str], ids: list[str]) -> None:
    assert [center["id"] for center in centers(api, **params)] == ids


def test_a_data_centre_tells_its_stock_only_when_asked(cloud: RunningCloud, api: httpx.Client) -> None:
    row = {"data_center": "EU-RO-1", "gpu": A4000, "cloud": "SECURE", "free": 1, "cuda_version": "12.8"}
    cloud.settings(inventory=[row])
    assert "gpuAvailability" not in api.get("/v2/catalog/datacenters/EU-RO-1").json()
    both = {"include": "GPU_AVAILABILITY,CPU_AVAILABILITY"}
    here = api.get("/v2/catalog/datacenters/EU-RO-1", params=both).json()
    there = api.get("/v2/catalog/datacenters/EU-SE-1", params=both).json()
    words = {gpu["id"]: gpu["availability"] for gpu in here["gpuAvailability"]}
    assert (words[A4000], words[A5000]) == ("LOW", "HIGH")
    assert A4000 not in {gpu["id"] for gpu in there["gpuAvailability"]}
    assert {cpu["id"] for cpu in here["cpuAvailability"]} == {"cpu3c", "cpu3g"}
    body = {"name": "a", "image": "i", "gpu": {"id": A4000}}
    assert api.post("/v2/pods", json=body).json()["dataCenterId"] == "EU-RO-1"
    again = centers(api, include="GPU_AVAILABILITY")[0]["gpuAvailability"]
    assert {gpu["id"]: gpu["availability"] for gpu in again}[A4000] == "NONE"


def test_a_cpu_flavour_has_a_price_and_a_biggest_size(api: httpx.Client) -> None:
    flavour = api.get("/v2/catalog/cpus/cpu3c").json()
    assert (flavour["price"]["securePerVcpu"], flavour["vcpu"]) == (0.03, {"min": 2, "max": 32})
    assert "availability" not in flavour
    query = {"include": "AVAILABILITY", "product": "POD"}
    assert api.get("/v2/catalog/cpus/cpu3c", params={**query, "vcpuCount": "32"}).json()["availability"] == "HIGH"
    big = api.get("/v2/catalog/cpus", params={**query, "vcpuCount": "64"}).json()["cpus"]
    assert {cpu["availability"] for cpu in big} == {"NONE"}
    assert all("dataCenters" not in cpu for cpu in big)


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("datacenters", {"include": "AVAILABILITY"}, 422),
        ("datacenters", {"regions": "europe"}, 422),
        ("datacenters", {"globalNetwork": "yes"}, 422),
        ("datacenters/MARS-1", {}, 404),
        ("cpus", {"product": "POD"}, 400),
        ("cpus", {"include": "AVAILABILITY"}, 400),
        ("cpus", {"include": "AVAILABILITY", "product": "CLUSTER"}, 422),
        ("cpus", {"include": "AVAILABILITY", "product": "POD", "vcpuCount": "3"}, 400),
        ("cpus", {"include": "AVAILABILITY", "product": "POD", "vcpuCount": "1"}, 422),
        ("cpus/cpu9z", {}, 404),
        ("gpus/NVIDIA RTX 9000", {}, 404),
        ("gpus", {"include": "AVAILABILITY", "product": "POD,SERVERLESS", "count": "2"}, 200),
        ("gpus", {"include": "AVAILABILITY", "product": "POD,LAUNDRY"}, 422),
    ],
)
def test_a_query_that_does_not_fit_is_refused(api: httpx.Client, path: str, params: dict[str, str], code: int) -> None:
    assert api.get(f"/v2/catalog/{path}", params=params).status_code == code


def test_countries_narrow_the_list_but_not_a_single_type(api: httpx.Client) -> None:
    query = {"include": "AVAILABILITY", "product": "POD", "countryCodes": "FR,DE"}
    assert api.get("/v2/catalog/gpus", params=query).json()["gpus"] == []
    one = api.get(f"/v2/catalog/gpus/{A4000}", params=query).json()
    assert (one["availability"], "dataCenters" in one) == ("NONE", False)
    assert api.get("/v2/catalog/gpus", params={**query, "countryCodes": "FR,RO"}).json()["gpus"] != []
