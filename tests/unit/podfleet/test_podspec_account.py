"""What a volume and a registry login do to names and environments of pods, and which names in the account are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet import podspec
from podfleet.config import PodfleetConfig, parse
from podfleet_node.settings import NodeSettings

BASE = {
    "uid": "local-0a1b2c3d",
    "sshPublicKey": "ssh-ed25519 AAAA podfleet-local",
    "sshPrivateKey": "CANARY-PRIVATE",
    "image": "example/node:1",
    "gpuTypes": ["NVIDIA RTX A4000"],
    "queueUrl": "http://127.0.0.1:8792",
}
VOLUME = {"volumeGb": 50, "volumeDataCenterId": "EU-RO-1"}
PREFIX = podspec.name_prefix("podfleet", "local")
UID = BASE["uid"]


def config(**changes: object) -> PodfleetConfig:
    return parse({**BASE, **changes}, stack="local")


def name_for(**changes: object) -> str:
    settings = config(**changes)
    return podspec.remote_name(PREFIX, "slot-01", settings.uid, podspec.pod_spec(settings))


def test_pods_rented_before_there_were_volumes_keep_their_names() -> None:
    assert name_for() == "podfleet-local-slot-01-477b0578"


@pytest.mark.parametrize("change", [{}, {"volumePath": "/m"}, {"volumeType": "HIGH_PERFORMANCE"}])
def test_a_volume_makes_another_pod_and_so_does_its_place(change: dict[str, object]) -> None:
    seen = {name_for(), name_for(**VOLUME), name_for(**{**VOLUME, "volumeDataCenterId": "EU-SE-1"})}
    assert len(seen | {name_for(**VOLUME, **change)}) == (4 if change else 3)


@pytest.mark.parametrize(
    "change", [{"volumeGb": 80}, {"registryUsername": "me", "registryPassword": "x"}, {"capacity": "spot-if-offered"}]
)
def test_growth_a_login_and_the_capacity_touch_no_pod(change: dict[str, object]) -> None:
    assert name_for(**{**VOLUME, **change}) == name_for(**VOLUME)
    assert name_for(volumePath="/unused") == name_for()


def test_with_a_volume_pods_are_rented_only_where_it_is_and_the_node_is_told_its_folder() -> None:
    settings = config(**VOLUME)
    spec = podspec.pod_spec(settings)
    assert spec.data_center_ids == ("EU-RO-1",)
    assert spec.mount == podspec.Mount("EU-RO-1", "STANDARD", "/models")
    env = podspec.pod_environment(settings, slot="slot-01", name="n-00000000")
    assert NodeSettings.from_env(env).model_cache == "/models"
    assert "PODFLEET_MODEL_CACHE" not in podspec.pod_environment(config(), slot="slot-01", name="n-00000000")


def test_a_registrys_name_tells_logins_apart_and_shows_none() -> None:
    def name(username: str, password: str, uid: str = UID) -> str:
        return podspec.registry_name("podfleet", "local", uid, username=username, password=password)

    assert name("me", "CANARY") == name("me", "CANARY")
    assert len({name("me", "a"), name("me", "b"), name("you", "a"), name("mea", ""), name("me", "a", "local-1")}) == 5
    assert "CANARY" not in name("me", "CANARY")


@pytest.mark.parametrize("purpose", ["tailnet", "models", "registry"])
def test_our_names_are_ours_alone(purpose: str) -> None:
    name = podspec.secret_name("podfleet", "local", UID, purpose)
    assert podspec.is_account_name(name, prefix=PREFIX, uid=UID)
    assert not podspec.is_account_name(name, prefix=PREFIX, uid="local-ffffffff")
    assert not podspec.is_account_name(name, prefix=podspec.name_prefix("podfleet", "loca"), uid=UID)
    assert not podspec.is_account_name(f"x{name}", prefix=PREFIX, uid=UID)
    assert not podspec.is_account_name(f"{name}-backup", prefix=PREFIX, uid=UID)
    assert not podspec.is_account_name(name, prefix="", uid=UID)
    assert not podspec.is_account_name(name, prefix=PREFIX, uid="")


def test_a_registrys_name_is_ours() -> None:
    name = podspec.registry_name("podfleet", "local", UID, username="u", password="p")
    assert podspec.is_account_name(name, prefix=PREFIX, uid=UID)


@given(st.text(max_size=40))
def test_no_other_text_is_taken_for_one_of_ours(text: str) -> None:
    assert not podspec.is_account_name(text, prefix=PREFIX, uid=UID)
    assert not podspec.is_account_name(PREFIX + text, prefix=PREFIX, uid=UID)
