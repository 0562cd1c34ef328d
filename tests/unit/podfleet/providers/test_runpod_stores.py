"""Registry logins, volumes and leftovers: adopted after a kill, never made twice, removed at last, and never shown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from runpod_fakes import Answer, FakeClock, FakeRunpod, lost, problem, runtime_of

from podfleet.errors import ApiUnavailable, ConfigError, EngineGone, ProviderError, RequestRejected
from podfleet.podspec import registry_name, secret_name
from podfleet.providers.runpod.holdings import HoldingsProvider
from podfleet.providers.runpod.lookup import Lookup
from podfleet.providers.runpod.registries import RegistryCore
from podfleet.providers.runpod.registry import RegistryArgs, RegistryProvider
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.volume import VolumeProvider
from podfleet.providers.runpod.volumes import VolumeCore, VolumeWish

UID, PREFIX = "dev-00000001", "podfleet-dev-"
NAME = registry_name("podfleet", "dev", UID, username="me", password="CANARY")
VOLUME = VolumeWish(secret_name("podfleet", "dev", UID, "models"), 50, "EU-RO-1", "STANDARD")


@pytest.fixture
def fake() -> FakeRunpod:
    return FakeRunpod()


@pytest.fixture
def run(fake: FakeRunpod) -> Runtime:
    return runtime_of(fake, FakeClock(), reconcile_s=20.0)


def sent(fake: FakeRunpod, method: str) -> int:
    return sum(1 for request in fake.requests if request.method == method)


def done_then(answer: Answer, fake: FakeRunpod, op: str) -> Answer:
    """The request is carried out, its answer is another."""

    def call(request: httpx.Request) -> httpx.Response:
        getattr(fake, f"do_{op}")(request)
        return answer(request)

    return call


# Registry logins


def test_a_login_is_made_once_and_adopted_after_a_kill(fake: FakeRunpod, run: Runtime) -> None:
    first = run.registries.create(NAME, "me", "CANARY")
    assert run.registries.create(NAME, "me", "CANARY") == first
    assert len(fake.registries) == 1
    assert run.registries.exists(first, NAME)


def test_another_login_has_another_name_and_both_can_be_there(fake: FakeRunpod, run: Runtime) -> None:
    other = registry_name("podfleet", "dev", UID, username="me", password="new")
    assert other != NAME
    first, second = run.registries.create(NAME, "me", "CANARY"), run.registries.create(other, "me", "new")
    run.registries.delete(first)
    run.registries.delete(first)
    assert list(fake.registries) == [second]
    assert not run.registries.exists(first, NAME)


@pytest.mark.parametrize("answer", [lost, lambda _: problem(500, "oops"), lambda _: httpx.Response(201, text="<html>")])
def test_a_login_whose_answer_was_lost_is_found_and_not_made_again(
    fake: FakeRunpod, run: Runtime, answer: Answer
) -> None:
    fake.next("post_registry", done_then(answer, fake, "post_registry"))
    assert run.registries.create(NAME, "me", "CANARY") in fake.registries
    assert sent(fake, "POST") == 1


def test_a_login_that_was_not_made_is_an_error_that_shows_nothing(
    fake: FakeRunpod, run: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.next("post_registry", lambda _: problem(500, "oops"))
    with pytest.raises(ApiUnavailable) as caught:
        run.registries.create(NAME, "me", "CANARY")
    fake.next("post_registry", lambda _: problem(422, "'CANARY' is too short"))
    with pytest.raises(RequestRejected) as refused:
        run.registries.create(NAME, "me", "CANARY")
    assert "'***' is too short" in str(refused.value)
    assert "CANARY" not in f"{caught.value} {refused.value} {capsys.readouterr()}"


def test_a_login_in_use_stays_until_the_fleet_is_gone(fake: FakeRunpod, run: Runtime) -> None:
    registry_id = run.registries.create(NAME, "me", "CANARY")
    fake.next("delete_registry", lambda _: problem(400, "registry credential is in use by pod x"))
    run.registries.delete(registry_id)
    assert fake.registries
    run.leftovers.remove(UID, PREFIX)
    assert not fake.registries


def test_a_refused_delete_is_an_error(fake: FakeRunpod, run: Runtime) -> None:
    fake.next("delete_registry", lambda _: problem(403, "access denied"))
    with pytest.raises(RequestRejected):
        run.registries.delete("reg1")


def test_the_state_never_compares_a_password() -> None:
    olds = {"name": NAME}
    assert not RegistryProvider().diff("r", olds, {"name": NAME, "username": "u", "password": "p"}).changes
    other = RegistryProvider().diff("r", olds, {"name": "other"})
    assert other.replaces == ["name"]
    assert not other.delete_before_replace
    assert "CANARY" not in repr(RegistryArgs(NAME, "me", "CANARY"))


# Volumes


def test_a_volume_is_made_once_and_adopted_after_a_kill(fake: FakeRunpod, run: Runtime) -> None:
    first = run.volumes.create(VOLUME)
    assert run.volumes.create(VOLUME) == first
    assert (first.size_gb, first.data_center_id, first.type) == (50, "EU-RO-1", "STANDARD")
    assert sent(fake, "POST") == 1


@pytest.mark.parametrize("answer", [lost, lambda _: problem(502, "bad gateway")])
def test_a_volume_whose_answer_was_lost_is_found_and_not_made_again(
    fake: FakeRunpod, run: Runtime, answer: Answer
) -> None:
    fake.next("post_volume", done_then(answer, fake, "post_volume"))
    fake.next("get_volume", fake.do_get_volume, lambda _: httpx.Response(200, json={"networkVolumes": []}))
    assert run.volumes.create(VOLUME).id in fake.volumes
    assert sent(fake, "POST") == 1


def test_after_a_blind_last_look_the_lost_answer_is_the_error(fake: FakeRunpod, run: Runtime) -> None:
    fake.next("post_volume", done_then(lost, fake, "post_volume"))
    fake.next("get_volume", fake.do_get_volume, *[lambda _: problem(500, "oops")] * 400)
    with pytest.raises(ApiUnavailable, match="POST /network-volumes"):
        run.volumes.create(VOLUME)
    fake.script.clear()
    run.volumes.create(VOLUME)
    assert sent(fake, "POST") == 1


def test_a_volume_elsewhere_or_of_another_type_is_another_volume(fake: FakeRunpod, run: Runtime) -> None:
    for other in (("EU-SE-1", "STANDARD"), ("EU-RO-1", "HIGH_PERFORMANCE")):
        run.volumes.create(VolumeWish(VOLUME.name, 50, *other))
    run.volumes.create(VOLUME)
    assert len(fake.volumes) == 3


def test_of_two_volumes_the_bigger_is_taken_and_none_is_removed(
    fake: FakeRunpod, run: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": VOLUME.name, "dataCenter": VOLUME.data_center_id, "type": VOLUME.type}
    fake.volumes |= {key: {"id": key, "size": size, **row} for key, size in [("a", 20), ("b", 50)]}
    assert run.volumes.create(VOLUME).id == "b"
    assert set(fake.volumes) == {"a", "b"}
    assert "volume.more_than_one" in capsys.readouterr().out


def test_an_adopted_volume_is_grown(fake: FakeRunpod, run: Runtime) -> None:
    volume = run.volumes.create(VOLUME)
    bigger = VolumeWish(VOLUME.name, 80, VOLUME.data_center_id, VOLUME.type)
    assert run.volumes.create(bigger).size_gb == 80
    assert fake.volumes[volume.id]["size"] == 80


def test_growing_survives_a_lost_answer(fake: FakeRunpod, run: Runtime) -> None:
    volume = run.volumes.create(VOLUME)
    fake.next("patch_volume", done_then(lost, fake, "patch_volume"))
    assert run.volumes.grow(volume.id, VolumeWish(VOLUME.name, 80, "EU-RO-1", "STANDARD")).size_gb == 80
    fake.next("patch_volume", lost)
    with pytest.raises(ApiUnavailable):
        run.volumes.grow(volume.id, VolumeWish(VOLUME.name, 90, "EU-RO-1", "STANDARD"))


def test_a_shrink_is_one_line_and_sends_nothing(fake: FakeRunpod, run: Runtime) -> None:
    volume = run.volumes.create(VOLUME)
    before = len(fake.requests)
    with pytest.raises(ConfigError, match=r"^podfleet:volumeGb: 20 is less than the volume has \(50\)") as caught:
        run.volumes.grow(volume.id, VolumeWish(VOLUME.name, 20, "EU-RO-1", "STANDARD"))
    assert "\n" not in str(caught.value)
    assert {request.method for request in fake.requests[before:]} == {"GET"}


def test_a_volume_that_is_gone_is_told(run: Runtime) -> None:
    with pytest.raises(RequestRejected, match="volume vol9 is gone"):
        run.volumes.grow("vol9", VOLUME)
    assert run.volumes.read("vol9") is None
    run.volumes.delete("vol9")


def test_the_end_of_a_volume_waits_for_a_pod_that_still_holds_it(fake: FakeRunpod, run: Runtime) -> None:
    volume = run.volumes.create(VOLUME)
    fake.next("delete_volume", *[lambda _: problem(400, "volume is in use")] * 3)
    run.volumes.delete(volume.id)
    assert not fake.volumes


def test_a_volume_that_stays_in_use_or_listed_is_an_error(fake: FakeRunpod, run: Runtime) -> None:
    volume = run.volumes.create(VOLUME)
    fake.next("delete_volume", *[lambda _: problem(400, "volume is in use by pod x")] * 99)
    with pytest.raises(RequestRejected, match="in use by pod x"):
        run.volumes.delete(volume.id)
    fake.script["delete_volume"] = [lambda _: httpx.Response(204)] * 99
    with pytest.raises(ProviderError, match="still listed 60 s after its delete: it still costs money"):
        run.volumes.delete(volume.id)


STATE: dict[str, Any] = {"name": "v", "sizeGb": 50.0, "dataCenterId": "EU-RO-1", "type": "STANDARD"}


def test_a_shrink_is_refused_by_the_preview() -> None:
    (failure,) = VolumeProvider().check(STATE, {**STATE, "sizeGb": 20}).failures
    assert failure.property == "sizeGb"
    assert "a volume cannot shrink" in failure.reason
    assert VolumeProvider().check(STATE, {**STATE, "sizeGb": 20, "dataCenterId": "EU-SE-1"}).failures == []
    assert VolumeProvider().check({}, STATE).failures == []
    with pytest.raises(ConfigError):  # grown by hand since
        VolumeProvider().diff("v", {**STATE, "sizeGb": 80}, STATE)


def test_growth_is_an_update_and_another_place_or_type_another_volume() -> None:
    grown = VolumeProvider().diff("v", STATE, {**STATE, "sizeGb": 60})
    assert grown.changes
    assert not grown.replaces
    assert not VolumeProvider().diff("v", STATE, {**STATE, "sizeGb": 50}).changes
    for key in ("name", "dataCenterId", "type"):
        other = VolumeProvider().diff("v", STATE, {**STATE, key: "x", "sizeGb": 20})
        assert other.replaces == [key]
        assert not other.delete_before_replace


def test_without_its_engine_nothing_is_made(fake: FakeRunpod, run: Runtime) -> None:
    class Dead:
        def require(self, what: str) -> None:
            raise EngineGone(what)

    clock = FakeClock()
    lookup = Lookup(clock, 1.0, 1.0)
    with pytest.raises(EngineGone):
        VolumeCore(run.client, lookup, Dead(), clock).create(VOLUME)
    with pytest.raises(EngineGone):
        RegistryCore(run.client, lookup, Dead()).create(NAME, "me", "CANARY")
    assert sent(fake, "POST") == 0


# What is left


def test_what_is_left_of_ours_is_removed_and_nothing_else(fake: FakeRunpod, run: Runtime) -> None:
    run.volumes.create(VOLUME)
    run.registries.create(NAME, "me", "CANARY")
    run.secrets.put(secret_name("podfleet", "dev", UID, "tailnet"), "x", "d")
    others = [
        secret_name("podfleet", "dev", "dev-00000002", "tailnet"),
        secret_name("podfleet", "prod", UID, "tailnet"),
        "podfleet-dev-mine",
        f"{secret_name('podfleet', 'dev', UID, 'tailnet')}-old",
    ]
    for name in others:
        run.secrets.put(name, "x", "d")
    run.client.create_volume("podfleet-dev-episodes", size_gb=10, data_center_id="EU-RO-1", type_="STANDARD")
    run.leftovers.remove(UID, PREFIX)
    assert sorted(row["name"] for row in fake.secrets.values()) == sorted(others)
    assert [row["name"] for row in fake.volumes.values()] == ["podfleet-dev-episodes"]
    assert not fake.registries


def test_a_key_that_may_not_look_holds_up_no_end_and_other_trouble_comes_last(fake: FakeRunpod, run: Runtime) -> None:
    fake.next("get_volume", lambda _: problem(403, "access denied"))
    run.leftovers.remove(UID, PREFIX)
    run.secrets.put(secret_name("podfleet", "dev", UID, "tailnet"), "x", "d")
    fake.next("get_registry", *[lambda _: problem(500, "oops")] * 9)
    with pytest.raises(ApiUnavailable):
        run.leftovers.remove(UID, PREFIX)
    assert not fake.secrets


def test_holdings_know_whose_they_are() -> None:
    failures = {failure.property for failure in HoldingsProvider().check({}, {"uid": ""}).failures}
    assert failures == {"uid", "prefix"}
    olds = {"uid": UID, "prefix": PREFIX}
    assert not HoldingsProvider().diff("h", olds, dict(olds)).changes
    assert HoldingsProvider().diff("h", olds, {**olds, "uid": "dev-00000002"}).replaces == ["uid"]
