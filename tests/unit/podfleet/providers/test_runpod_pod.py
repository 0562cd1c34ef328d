"""`Pod`'s outputs: which candidate was chosen and why not the others; kept by a refresh, and no reason for a change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from runpod_fakes import CAPACITY, FakeClock, FakeRunpod, gpu_row, problem, runtime_of

from podfleet.providers.runpod.pod import PodProvider
from podfleet.providers.runpod.runtime import Runtime

PROPS: dict[str, Any] = {
    "name": "podfleet-dev-slot-01-0badcafe",
    "uid": "dev-00000001",
    "slot": "slot-01",
    "specHash": "0badcafe",
    "image": "img:1",
    "gpuTypes": [],
    "cloud": "SECURE",
    "minCudaVersion": "12.8",
}


@pytest.fixture
def fake() -> FakeRunpod:
    return FakeRunpod()


@pytest.fixture
def provider(fake: FakeRunpod, monkeypatch: pytest.MonkeyPatch) -> PodProvider:
    run: Runtime = runtime_of(fake, FakeClock())
    monkeypatch.setattr(PodProvider, "core", property(lambda _self: run))
    return PodProvider()


def created(provider: PodProvider, fake: FakeRunpod) -> tuple[str, dict[str, Any]]:
    fake.gpus = [gpu_row("GPU A", 0.2), gpu_row("GPU B", 0.3), gpu_row("GPU C", 0.1, availability="NONE")]
    fake.next("post_pod", lambda _: problem(400, CAPACITY))
    result = provider.create(PROPS)
    assert result.outs is not None
    return result.id, result.outs


def test_the_choice_and_the_reasons_against_the_others_are_outputs(provider: PodProvider, fake: FakeRunpod) -> None:
    _, outs = created(provider, fake)
    assert outs["candidate"].startswith("GPU B SECURE at $0.30/h, $0.0014 per hour of audio (assumed")
    assert outs["rejected"] == [
        f"GPU A SECURE: RunPod says 400: {CAPACITY} (request req-1)",
        "GPU C SECURE: none free with CUDA 12.8 or later (stock)",
    ]
    assert len(json.dumps(outs["rejected"])) < 4000


def test_a_refresh_keeps_the_choice_and_reads_the_rest(provider: PodProvider, fake: FakeRunpod) -> None:
    pod_id, outs = created(provider, fake)
    fake.pods[pod_id] |= {"status": "RUNNING", "dataCenterId": "EU-1", "cudaVersion": "12.9", "cost": 0.31}
    provider.core.census.since(1012.0)  # a list that is newer than the create's
    read = provider.read(pod_id, outs).outs
    assert {key: read[key] for key in ("candidate", "rejected")} == {
        key: outs[key] for key in ("candidate", "rejected")
    }
    assert (read["dataCenterId"], read["cudaVersion"], read["costUsdPerHr"]) == ("EU-1", "12.9", 0.31)


@pytest.mark.parametrize(
    "told", [{"candidate": "X"}, {"rejected": []}, {"dataCenterId": "EU-2"}, {"cudaVersion": ""}, {"candidate": None}]
)
def test_no_choice_is_a_reason_for_a_change(told: dict[str, Any]) -> None:
    """Neither in a state from before there were choices, nor with the empty inputs of a second `up`."""
    before = {**PROPS, "status": "RUNNING", "candidate": "A", "rejected": ["b"], "dataCenterId": "EU-1"}
    assert not PodProvider().diff("id", {**before, **told}, PROPS).changes
    assert not PodProvider().diff("id", {**PROPS, "status": "RUNNING"}, {**PROPS, "candidate": None}).changes


def test_any_gpu_is_a_written_empty_list() -> None:
    assert PodProvider().check({}, PROPS).failures == []
    (failure,) = PodProvider().check({}, {**PROPS, "gpuTypes": None}).failures
    assert failure.property == "gpuTypes"
