"""The price in the plan, from a few reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from podfleet.config import parse
from podfleet.providers.runpod import prices
from podfleet.providers.runpod.client import Access, Patience, RunpodClient

VALUES = {"uid": "local-0a1b2c3d", "bootstrap": "none", "image": "x", "queueUrl": "http://127.0.0.1:1"}
Plan = Callable[..., str]


def gpu(name: str, secure: float, community: float, **more: Any) -> dict[str, Any]:
    price = {"secure": secure, "community": community}
    return {"id": name, "memory": 24, "price": price, "availability": "HIGH", **more}


GPUS = [gpu("NVIDIA L4", 0.49, 0), gpu("NVIDIA RTX A5000", 0.27, 0.16), gpu("NVIDIA RTX A4000", 0.25, 0.17, memory=16)]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The line for one pod; `catalogue` answers a catalogue request."""

    def call(catalogue: Callable[[httpx.Request], httpx.Response], **config: object) -> str:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json={"pods": []}) if request.url.path == "/v2/pods" else catalogue(request)

        def client(access: Access) -> RunpodClient:
            return RunpodClient(access, transport=httpx.MockTransport(answer), patience=Patience(read_attempts=1))

        monkeypatch.setattr(prices, "RunpodClient", client)
        settings = parse({**VALUES, **config}, stack="local")
        access = Access("http://127.0.0.1:1", "key")
        return str(prices.price_plan(settings, ["slot-01"], prefix="podfleet-local-", access=access))

    return call


def shows(*gpus: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(200, json={"gpus": list(gpus)})


def test_a_catalogue_that_does_not_answer_makes_the_price_unknown_and_stops_nothing(plan: Plan) -> None:
    line = plan(lambda _: httpx.Response(503))
    assert line == "$0.00/h now → price unknown: the catalogue does not answer (0 → 1 pods)"


def test_any_gpu_in_both_clouds_is_priced_by_the_best_one(plan: Plan) -> None:
    line = plan(shows(*GPUS), cloud="ALL", engine="parakeet")
    assert line == (
        "$0.00/h now → $0.16/h then (0 → 1 pods, new ones on NVIDIA RTX A5000 COMMUNITY at $0.16/h "
        "(offers: $0.16 to $0.49/h), $0.00032 per hour of audio (planning figure); at most $1.47/h with 3 pods)"
    )


def test_each_cloud_is_asked_with_the_cuda_floor(plan: Plan) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.params["cloud"], request.url.params["minCudaVersion"]))
        return shows(*GPUS)(request)

    plan(answer, cloud="ALL")
    assert asked == [("SECURE", "12.8"), ("COMMUNITY", "12.8")]


def test_where_no_offer_fits_the_line_says_which_filter_is_binding(plan: Plan) -> None:
    line = plan(shows(*GPUS), maxUsdPerPodHour="0.2")
    assert line == (
        "$0.00/h now → price unknown: no offer fits: 3 offers match without `maxUsdPerPodHour: 0.2`; "
        "2 match without `cloud: SECURE` (0 → 1 pods)"
    )


def test_where_nothing_is_in_stock_it_says_so(plan: Plan) -> None:
    line = plan(shows(*[{**each, "availability": "NONE"} for each in GPUS]))
    assert "price unknown: nothing is in stock" in line


def test_with_a_volume_only_its_data_centre_counts(plan: Plan) -> None:
    there = [{"id": "EU-1", "availability": "HIGH"}]
    line = plan(
        shows(GPUS[1] | {"dataCenters": [{"id": "US-1"}]}, GPUS[0] | {"dataCenters": there}),
        volumeGb="20",
        volumeDataCenterId="EU-1",
    )
    assert "new ones on NVIDIA L4 SECURE EU-1 at $0.49/h" in line
