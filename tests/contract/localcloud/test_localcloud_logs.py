"""The log stream's headers, and where a reader goes on: Last-Event-ID before since before tail."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, wait_until

Create = Callable[..., dict[str, Any]]
LINES = [f"line {n}" for n in range(6)]


@pytest.fixture
def pod(cloud: RunningCloud, create: Create) -> dict[str, Any]:
    """A pod that has said six lines."""
    made = create(cmd=["-c", "for n in 0 1 2 3 4 5; do echo line $n; sleep 0.01; done; sleep 60"])
    log = cloud.folder / "logs" / f"{made['id']}.log"
    wait_until(lambda: log.exists() and LINES[-1] in log.read_text(), what="six lines")
    return made


def events(api: httpx.Client, pod: dict[str, Any], headers: dict[str, str] | None = None, **params: Any) -> list[Any]:
    """Events of the container until its last line, each with its `id`."""
    where, found, event_id = f"/v2/pods/{pod['id']}/logs", [], ""
    with api.stream("GET", where, params={"source": "container", **params}, headers=headers) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            event_id = value if key == "id" else event_id
            if key == "data":
                found.append({**json.loads(value), "id": event_id})
                if found[-1]["line"] == LINES[-1]:
                    break
    return found


def words(found: list[Any]) -> list[str]:
    return [event["line"] for event in found]


def test_the_stream_is_not_cached_and_not_buffered(api: httpx.Client, pod: dict[str, Any]) -> None:
    with api.stream("GET", f"/v2/pods/{pod['id']}/logs") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-cache", "no")
        assert "ratelimit" in stream.headers


def test_last_event_id_goes_before_since_and_since_before_tail(api: httpx.Client, pod: dict[str, Any]) -> None:
    every = events(api, pod)
    assert words(every) == LINES
    third, fourth = every[2], every[3]
    assert third["id"].startswith(f"{third['ts']}/")
    assert words(events(api, pod, tail=2)) == LINES[-2:]
    assert words(events(api, pod, tail=1, since=fourth["ts"])) == LINES[3:]
    resume = {"Last-Event-ID": third["id"]}
    assert words(events(api, pod, resume, tail=1, since=every[5]["ts"])) == LINES[3:]
    assert words(events(api, pod, {"Last-Event-ID": third["ts"]})) == LINES[3:]


@pytest.mark.parametrize(
    ("params", "last_id", "where"),
    [
        ({"since": "yesterday"}, None, "since"),
        ({"since": "2026-11-24"}, None, "since"),
        ({}, "nonsense", "Last-Event-ID"),
        ({"tail": "-1"}, None, "tail"),
        ({"tail": "many"}, None, "tail"),
        ({"source": "kernel"}, None, "source"),
    ],
)
def test_what_cannot_be_read_is_422_and_named(
    api: httpx.Client, pod: dict[str, Any], params: dict[str, str], last_id: str | None, where: str
) -> None:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    answer = api.get(f"/v2/pods/{pod['id']}/logs", params=params, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0].startswith(f"{where}:")
