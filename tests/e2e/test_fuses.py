"""No fuse rests on another: a pod that may not end itself is ended by the sweep, by Guard, by `destroy`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.fleet import Fleet
from tools.stage import STACK

from podfleet.providers.runpod.client import Access, RunpodClient

pytestmark = [pytest.mark.engine, pytest.mark.slow]
RIGHTS = ["pods.get", "pods.delete", "graphql.pod", "graphql.podTerminate", "graphql.podStop"]
LIFETIME_MINUTES = 0.05
REFUSED = {"selfstop.answered", "selfstop.failed"}


@pytest.fixture
def doomed(fleet: Fleet, wait_for: Callable[..., None]) -> Iterator[list[str]]:
    """Two pods that are past their lifetime, and have been refused every way to end themselves. Their ids."""
    fleet.emulate(pod_key_rights=[], graphql="gone")
    more = {"keepAlive": "true", "sweepMinAgeMinutes": 0, "sweepLooksApartMinutes": 0.01}
    fleet.config(bootstrap="none", pods=2, maxRuntimeMinutes=LIFETIME_MINUTES, **more)
    fleet.up()
    ids = [pod["id"] for pod in fleet.pods()]
    for pod_id in ids:
        wait_for(lambda pod_id=pod_id: len(steps(fleet, pod_id)) >= 6, "two rounds of refusals")  # type: ignore[misc]
    assert [pod["id"] for pod in fleet.pods()] == ids, "they are still there, and cost money"
    yield ids
    fleet.emulate(pod_key_rights=RIGHTS, graphql="on")
    fleet.config(keepAlive=None, sweepMinAgeMinutes=None, sweepLooksApartMinutes=None, maxRuntimeMinutes=60)


def steps(fleet: Fleet, pod_id: str) -> list[dict[str, object]]:
    """What the node has tried, by its log."""
    client = RunpodClient(Access(fleet.stage.cloud_url, fleet.stage.env["RUNPOD_API_KEY"]))
    try:
        lines = [line.text for line in client.pod_logs(pod_id, tail=1000)]
    finally:
        client.close()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in found if event["event"] in REFUSED]


def test_every_way_is_refused_and_the_log_says_so(fleet: Fleet, doomed: list[str]) -> None:
    first, second, third = steps(fleet, doomed[0])[:3]
    assert (first["request"], first["status"]) == (1, 403)
    assert (second["request"], second["status"]) == (2, 410)
    assert (third["request"], third["error"]) == (3, "no such command in this image")


def test_the_sweep_ends_them(fleet: Fleet, doomed: list[str]) -> None:
    """They are in the state, and were never silent on purpose: their own end is what counts."""
    shown = fleet.stage.podfleet("sweep", STACK, "--json")
    assert shown.returncode == 3, shown.stderr
    found = json.loads(shown.stdout)["found"]
    assert sorted(each["id"] for each in found) == sorted(doomed)
    assert all(each["reason"].startswith("past its lifetime for ") for each in found)
    done = fleet.stage.podfleet("sweep", STACK, "--yes")
    assert (done.returncode, fleet.pods()) == (0, []), done.stdout + done.stderr


def test_guard_ends_them(fleet: Fleet, doomed: list[str]) -> None:
    done = fleet.stage.podfleet("scale", STACK, "0")
    assert (done.returncode, fleet.pods()) == (0, []), done.stderr


def test_destroy_ends_them(fleet: Fleet, doomed: list[str]) -> None:
    done = fleet.stage.podfleet("destroy", STACK)
    assert (done.returncode, fleet.pods()) == (0, []), done.stderr
