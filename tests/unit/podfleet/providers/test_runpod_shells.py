"""The dynamic providers as the state knows them: fixed paths, no attributes, checks and diffs that write nothing."""

from __future__ import annotations

import asyncio
import base64
import importlib
from collections.abc import Iterator
from typing import Any

import dill  # type: ignore[import-untyped]
import pulumi
import pytest
from pulumi.dynamic.dynamic import serialize_provider

from podfleet.errors import ConfigError
from podfleet.providers import PROVIDERS
from podfleet.providers.runpod.guard import GuardProvider, written_list
from podfleet.providers.runpod.pod import PodProvider
from podfleet.providers.runpod.reachable import PodReachableProvider
from podfleet.providers.runpod.secret import SecretArgs, SecretProvider
from podfleet.providers.runpod.sweep import SweepProvider

PATHS = [
    "podfleet.providers.runpod.pod.PodProvider",
    "podfleet.providers.runpod.guard.GuardProvider",
    "podfleet.providers.runpod.sweep.SweepProvider",
    "podfleet.providers.runpod.reachable.PodReachableProvider",
    "podfleet.providers.runpod.secret.SecretProvider",
    "podfleet.providers.runpod.registry.RegistryProvider",
    "podfleet.providers.runpod.volume.VolumeProvider",
    "podfleet.providers.runpod.holdings.HoldingsProvider",
]


@pytest.mark.parametrize("path", PATHS)
def test_the_path_in_every_state_has_not_moved(path: str) -> None:
    module, _, name = path.rpartition(".")
    provider = getattr(importlib.import_module(module), name)()
    stored = base64.b64decode(serialize_provider(provider))
    assert module.encode() in stored
    assert name.encode() in stored
    assert len(stored) < 120  # by reference: a code edit changes no byte of a state
    assert type(dill.loads(stored)) is type(provider)  # noqa: S301


def test_the_table_of_providers_is_complete() -> None:
    table = PROVIDERS["runpod"]()
    made = {table.pod, table.guard, table.sweep, table.reachable, table.secret}
    assert made | {table.registry, table.volume, table.holdings} == {
        getattr(importlib.import_module(f"podfleet.providers.runpod.{module}"), name)
        for module, name in [
            ("pod", "Pod"),
            ("guard", "Guard"),
            ("sweep", "Sweep"),
            ("reachable", "PodReachable"),
            ("secret", "Secret"),
            ("registry", "Registry"),
            ("volume", "Volume"),
            ("holdings", "Holdings"),
        ]
    }


GUARD: dict[str, Any] = {"uid": "dev-1", "prefix": "p-dev-", "wanted": ["p-dev-slot-01-00000000"], "generation": "g"}


@pytest.mark.parametrize("bad", [{"wanted": None}, {"wanted": pulumi.runtime.rpc.UNKNOWN}, {"uid": ""}, {"prefix": ""}])
def test_guard_and_sweep_refuse_what_is_not_a_written_wish(bad: dict[str, Any]) -> None:
    news = {**GUARD, "pods": [], **bad}
    (failure,) = GuardProvider().check({}, news).failures
    assert failure.property == next(iter(bad))
    assert SweepProvider().check({}, news).failures


def test_sweep_has_no_default_for_pods() -> None:
    (failure,) = SweepProvider().check({}, GUARD).failures
    assert failure.property == "pods"


def test_guard_changes_only_with_the_wish() -> None:
    same = {**GUARD, "adopt": True}
    assert not GuardProvider().diff("g", GUARD, same).changes
    assert GuardProvider().diff("g", GUARD, {**GUARD, "wanted": []}).changes


def test_sweep_runs_again_with_each_generation() -> None:
    olds = {**GUARD, "pods": ["a"]}
    assert not SweepProvider().diff("s", olds, olds).changes
    assert SweepProvider().diff("s", olds, {**olds, "generation": "h"}).changes
    assert SweepProvider().diff("s", olds, {**olds, "pods": ["b"]}).changes


def test_a_pod_without_an_identity_is_refused() -> None:
    failures = {failure.property for failure in PodProvider().check({}, {"image": "x"}).failures}
    assert {"name", "uid", "slot", "specHash", "gpuTypes", "cloud"} <= failures


def test_a_replaced_pod_is_ended_before_the_new_one_is_rented() -> None:
    olds = {"name": "a", "uid": "u", "specHash": "1", "status": "RUNNING"}
    result = PodProvider().diff("p", olds, {**olds, "name": "b"})
    assert result.changes
    assert result.replaces == ["name"]
    assert result.delete_before_replace


def test_a_new_pod_id_makes_reachable_anew_and_a_new_deadline_does_not() -> None:
    olds = {"podId": "a", "deadlineS": 1}
    assert PodReachableProvider().diff("r", olds, {"podId": "b"}).replaces == ["podId"]
    assert not PodReachableProvider().diff("r", olds, {"podId": "a", "deadlineS": 2}).changes


def test_a_rotated_secret_is_an_update_and_a_renamed_one_another() -> None:
    olds = {"name": "s", "value": "1", "description": ""}
    rotated = SecretProvider().diff("x", olds, {**olds, "value": "2"})
    assert rotated.changes
    assert not rotated.replaces
    assert SecretProvider().diff("x", olds, {**olds, "name": "t"}).replaces == ["name"]


@pytest.fixture
def _loop() -> Iterator[None]:
    """Outputs need an event loop of this thread."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("_loop")
def test_wanted_is_never_an_output() -> None:
    for wanted in (None, "[]", {"a": 1}, [pulumi.Output.from_input("x")]):
        with pytest.raises(ConfigError, match="plain list"):
            written_list(wanted)


def test_no_repr_of_arguments_shows_a_value() -> None:
    assert "tskey" not in repr(SecretArgs("s", "tskey-auth-1"))
