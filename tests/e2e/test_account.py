"""Logins, volumes and limits with the real engine: their whole life, and what a kill in mid-create leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.crash import Point, crash, hold
from tests.e2e.fleet import Fleet
from tools.stage import Stage

pytestmark = pytest.mark.engine
CANARY = "CANARYregistryP7k2Vn4"
PLACE = "EU-RO-1"


class Account:
    """What the cloud lists beside pods."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        line = (fleet.stage.folder / "cloud" / "credentials.env").read_text().splitlines()
        key = next(text.split("=", 1)[1] for text in line if text.startswith("RUNPOD_API_KEY="))
        self._http = httpx.Client(
            base_url=f"{fleet.stage.cloud_url}/v2", headers={"Authorization": f"Bearer {key}"}, trust_env=False
        )

    def rows(self, path: str) -> list[dict[str, Any]]:
        body = self._http.get(path).raise_for_status().json()
        return next(value for value in body.values() if isinstance(value, list))

    @property
    def registries(self) -> list[dict[str, Any]]:
        return self.rows("/registries")

    @property
    def volumes(self) -> list[dict[str, Any]]:
        return self.rows("/network-volumes")

    @property
    def everything(self) -> list[str]:
        paths = ("/registries", "/network-volumes", "/account/secrets")
        return [row["name"] for path in paths for row in self.rows(path)]

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def account(fleet: Fleet) -> Iterator[Account]:
    """The stack's stores are switched off afterwards."""
    found = Account(fleet)
    yield found
    fleet.config(**dict.fromkeys(STORES), capacity=None, maxUsdPerDay=None)
    found.close()


STORES: dict[str, object] = {
    "registryUsername": "me",
    "registryPassword": CANARY,
    "volumeGb": 50,
    "volumeDataCenterId": PLACE,
}


def password(fleet: Fleet, value: str) -> None:
    done = fleet.stage.pulumi("config", "set", "--secret", "podfleet:registryPassword", value)
    assert done.returncode == 0, done.stdout


def stores(fleet: Fleet) -> None:
    fleet.config(**{key: value for key, value in STORES.items() if key != "registryPassword"})
    password(fleet, CANARY)


def test_a_login_and_a_volume_live_with_the_fleet(fleet: Fleet, account: Account) -> None:
    fleet.config(bootstrap="none", pods=1)
    stores(fleet)
    shown = fleet.up()
    assert "balance $" in shown
    (pod,), (registry,), (volume,) = fleet.pods(), account.registries, account.volumes
    assert (pod["registry"], pod["dataCenterId"]) == (registry["id"], PLACE)
    assert pod["mounts"]["network"] == [{"volumeId": volume["id"], "path": "/models"}]
    assert (volume["size"], volume["dataCenter"], volume["type"]) == (50, PLACE, "STANDARD")
    fleet.up("--refresh", "--expect-no-changes")

    # Growth and another login touch no pod; the new login is there before the old one goes.
    fleet.config(volumeGb=80)
    password(fleet, f"{CANARY}2")
    since = fleet.last_event()
    shown += fleet.up()
    kinds = [event["kind"] for event in fleet.events(since) if event["kind"].startswith("registry.")]
    assert kinds[0] == "registry.created"
    assert [each["id"] for each in fleet.pods()] == [pod["id"]]
    assert account.volumes == [{**volume, "size": 80}]
    assert registry["name"] != account.registries[-1]["name"]
    fleet.up("--expect-no-changes")

    # A smaller volume is one line, in the preview as well, and nothing is touched.
    fleet.config(volumeGb=20, pods=0)
    since = fleet.last_event()
    for told in (fleet.preview(rc=1), fleet.up(rc=1)):
        lines = {line.partition("podfleet:volumeGb")[2] for line in told.splitlines() if "cannot shrink" in line}
        assert len(lines) == 1  # which the engine says twice
        shown += told
    requests = [event for event in fleet.events(since) if event["kind"] == "request"]
    changes = [event for event in requests if event["method"] != "GET" and not event["path"].endswith("/graphql")]
    assert changes == []

    # The end: pods, then the volume, then all that is left.
    fleet.config(volumeGb=80)
    since = fleet.last_event()
    shown += fleet.destroy()
    order = [event["kind"] for event in fleet.events(since)]
    assert order.index("volume.deleted") > order.index("pod.ended" if "pod.ended" in order else "pod.terminated")
    assert account.everything == []
    assert CANARY not in shown
    for file in (fleet.stage.project / ".podfleet").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_a_limit_of_the_day_stops_the_next_pod_and_spot_is_one_warning(fleet: Fleet, account: Account) -> None:
    fleet.config(bootstrap="none", pods=2, maxUsdPerDay="0.4", capacity="spot-if-offered")
    shown = fleet.up(rc=1)
    assert len(fleet.pods()) == 1  # $0.25 an hour each
    assert "podfleet:maxUsdPerDay is $0.40, the last 24 h cost $0.00" in shown
    assert shown.count("RunPod offers no spot pods") == 2  # while it runs, and at its end
    fleet.config(maxUsdPerDay="0.6")
    fleet.up()
    assert fleet.slots() == ["slot-01", "slot-02"]


POINTS = [("volumes.create", "up"), ("volumes.create", "destroy"), ("registries.create", "destroy")]
POINTS += [("secrets.create", "destroy")]


@pytest.mark.parametrize(("op", "then"), POINTS)
@pytest.mark.parametrize("phase", ["after"])
def test_a_kill_in_the_middle_of_a_create_is_adopted_or_removed(
    fleet: Fleet, account: Account, running_stage: Stage, op: str, then: str, phase: str
) -> None:
    fleet.destroy()
    stores(fleet)
    point = Point(op, holds=(hold(op, phase),), change={"pods": 1})
    crash(fleet, point)
    assert account.everything
    running_stage.pulumi("cancel", "--yes")
    if then == "up":
        fleet.up()
        assert (len(account.registries), len(account.volumes), fleet.slots()) == (1, 1, ["slot-01"])
    fleet.destroy()
    assert (account.everything, fleet.pods()) == ([], [])
