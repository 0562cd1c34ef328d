"""A pod's choice under the real engine: an output that a refresh keeps and that asks for no change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from scratch import Scratch, engine_path

from localcloud.testing import RunningCloud

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("pulumi", path=engine_path()), reason="no Pulumi engine on PATH"),
]
A5000 = "NVIDIA RTX A5000"


@pytest.fixture
def scratch(tmp_path: Path, cloud: RunningCloud) -> Iterator[Scratch]:
    scratch = Scratch(tmp_path / "scratch", cloud)
    scratch.lay()
    yield scratch
    if scratch.leftovers():
        scratch.recover()


def test_the_choice_is_kept_and_changes_nothing(scratch: Scratch) -> None:
    scratch.config(pods=2, anyGpu="true", engine="parakeet", minVramGb=20, blockedGpuTypes='["NVIDIA L4"]')
    scratch.cloud.fault("pods.create", "status", status=400, detail="the moon is in the wrong house")
    assert scratch.up() == 0, scratch.text
    before, chosen = scratch.ids(), json.loads(scratch.output("placements"))
    told = [candidate for candidate, _ in chosen.values()]
    assert (
        sum(candidate.startswith(f"{A5000} SECURE at $0.27/h, $0.00054 per hour of audio") for candidate in told) == 1
    )
    reasons = [reason for _, rejected in chosen.values() for reason in rejected]
    assert any("the moon is in the wrong house (request " in reason for reason in reasons)
    assert "NVIDIA L4 SECURE: blocked (blockedGpuTypes)" in reasons
    assert "NVIDIA RTX A4000 SECURE: 16 GB, 20 are needed (minVramGb)" in reasons
    assert all(len(rejected) <= 12 for _, rejected in chosen.values())

    scratch.config(maxUsdPerPodHour="0.1", gpuSpeeds='{"NVIDIA RTX A4500": 9000}', gpuOrder="price", createRounds=1)
    assert scratch.up("--expect-no-changes") == 0, scratch.text
    assert scratch.refresh() == 0, scratch.text
    assert json.loads(scratch.output("placements")) == chosen
    assert scratch.up("--expect-no-changes") == 0, scratch.text
    assert scratch.ids() == before
