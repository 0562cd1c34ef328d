"""The price in the plan, from two reads."""

from __future__ import annotations

import httpx
import pytest

from podfleet.config import PodfleetConfig, parse
from podfleet.providers.runpod import prices
from podfleet.providers.runpod.client import Access, Patience, RunpodClient

CONFIG: PodfleetConfig = parse(
    {
        "uid": "local-0a1b2c3d",
        "bootstrap": "none",
        "image": "x",
        "gpuTypes": ["NVIDIA RTX A4000"],
        "queueUrl": "http://127.0.0.1:1",
    },
    stack="local",
)


def test_a_catalogue_that_does_not_answer_makes_the_price_unknown_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"pods": []}) if request.url.path == "/v2/pods" else httpx.Response(503)

    def client(access: Access) -> RunpodClient:
        return RunpodClient(access, transport=httpx.MockTransport(answer), patience=Patience(read_attempts=1))

    monkeypatch.setattr(prices, "RunpodClient", client)
    plan = prices.price_plan(CONFIG, ["slot-01"], prefix="podfleet-local-", access=Access("http://127.0.0.1:1", "key"))
    assert str(plan) == "$0.00/h now → price unknown: the catalogue does not show NVIDIA RTX A4000 (0 → 1 pods)"
