"""The price of a plan, and the plan that is too dear: it stops before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from podfleet.placement import Offer
from podfleet.providers.runpod import prices

Run = Callable[..., Any]  # answers the recorder of conftest.py
GPU = "NVIDIA RTX A4000"


@pytest.fixture
def offered(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run`, with one offer at $0.25/h and one pod of ours that costs $1.20/h."""
    running = {"podfleet-local-slot-09-00000000": 1.2}
    seen = prices.Readings((Offer(GPU, "SECURE", 0.25, "HIGH", 16),), running)
    monkeypatch.setattr(prices, "read", lambda *_args, **_kw: seen)
    return run


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for level in ("info", "error"):
        monkeypatch.setattr(pulumi.log, level, lambda text, *_args, **_kw: lines.append(text))
    return lines


def test_a_plan_that_is_dearer_than_the_limit_stops_with_one_line(offered: Run, said: list[str]) -> None:
    seen = offered(pods="6", maxPods="8", maxUsdPerHour="0.9", gpuTypes="[]")
    assert seen.exit_code == 32
    assert seen.seen == []
    (line,) = said
    assert line.startswith("podfleet:maxUsdPerHour: the plan costs $1.50/h with 6 pods, the limit is $0.90/h: ")


def test_a_fleet_over_its_limit_may_shrink_and_any_gpu_has_a_price(offered: Run, said: list[str]) -> None:
    seen = offered(pods="4", maxPods="8", maxUsdPerHour="0.9", gpuTypes="[]")
    assert seen.exit_code == 0
    assert said[0].startswith(f"price: $1.20/h now → $1.00/h then (1 → 4 pods, new ones on {GPU} SECURE at $0.25/h")


def test_the_choice_of_each_slot_is_an_output(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    run(pods="2")
    assert sorted(exported["placements"]) == ["slot-01", "slot-02"]
    assert all(sorted(each) == ["candidate", "rejected"] for each in exported["placements"].values())
