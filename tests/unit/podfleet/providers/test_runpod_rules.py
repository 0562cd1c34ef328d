"""Placement's part of the provider's settings: from config text, and from the environment of an `up`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet import avoid
from podfleet.config import parse
from podfleet.placement import Avoid, rules_of
from podfleet.providers.runpod.rules import AVOID_VARIABLE, read_avoid
from podfleet.providers.runpod.settings import ProviderSettings, read_settings

L4 = "NVIDIA L4"
STACK = {"uid": "s-0a1b2c3d", "image": "x", "queueUrl": "http://q", "bootstrap": "none"}


def settings(environ: dict[str, str] | None = None, **values: Any) -> ProviderSettings:
    return read_settings(environ or {}, {f"podfleet:{key}": value for key, value in values.items()}.get)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"gpuOrder": "listed", "gpuTypes": f'["{L4}"]', "engine": "parakeet", "maxUsdPerPodHour": "0.5"},
        {"gpuSpeeds": f'{{"{L4}": 60, "NVIDIA A40": 90.5}}', "blockedGpuTypes": f'["{L4}"]', "minVramGb": "20"},
        {"gpuSpeeds": {L4: 60}, "blockedGpuTypes": [L4], "engine": "whisper", "model": "medium"},
    ],
)
def test_the_provider_reads_the_same_rules_as_the_program(values: dict[str, Any]) -> None:
    """The plan's price and the create rank by the same; text and structured values alike."""
    assert settings(**values).rules == rules_of(parse({**STACK, **values}, stack="s"))


def test_rounds_and_their_pause_come_from_the_config() -> None:
    found = settings(createRounds="5", createRoundWaitSeconds="0.5")
    assert (found.create_rounds, found.create_round_wait_s) == (5, 0.5)
    assert (settings().create_rounds, settings().create_round_wait_s) == (3, 15.0)


@pytest.mark.parametrize("bad", ["{", "7", '"x"', "[1]", "null"])
def test_rules_that_cannot_be_read_do_not_stop_a_destroy(bad: str) -> None:
    found = settings({AVOID_VARIABLE: bad}, gpuSpeeds=bad, blockedGpuTypes=bad if bad != "[1]" else "{}")
    assert (found.rules.speeds, found.rules.blocked, found.avoid) == ((), (), ())


def test_settings_can_be_a_key_of_a_table() -> None:
    found = settings({AVOID_VARIABLE: '[{"gpu": "g", "cloud": "SECURE"}]'}, gpuSpeeds={L4: 60}, blockedGpuTypes=[L4])
    assert hash(found) == hash(
        settings({AVOID_VARIABLE: '[{"gpu":"g","cloud":"SECURE"}]'}, gpuSpeeds={L4: 60}, blockedGpuTypes=[L4])
    )


@given(
    st.lists(
        st.builds(avoid.BadHost, *[st.text(min_size=1, max_size=9)] * 4, st.floats(0, 9), st.sampled_from(["", "12.4"]))
    )
)
def test_the_hosts_that_an_up_has_found_bad_are_the_ones_that_are_avoided(hosts: list[avoid.BadHost]) -> None:
    assert avoid.AVOID_VARIABLE == AVOID_VARIABLE
    expected = tuple(Avoid(host.gpu, host.cloud, host.data_center_id, host.cuda_version) for host in hosts)
    assert read_avoid(avoid.told(hosts)) == expected
