"""The two looks of a sweep, the lock that only an engine can see, and what servers say of silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from podfleet.errors import SignalError, StillThere
from podfleet.providers.runpod.wire import PodView
from podfleet.signals.nodes import NodeRegister, Row, silences
from podfleet.signals.tailnet import TailnetDevices, has_credentials
from podfleet.sweeping import sweeper
from podfleet.sweeping.looks import Finding, Look
from podfleet.sweeping.sweeper import Sweeper
from podfleet.workspace import Workspace

APART_MINUTES = 3.0
NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class Clock:
    """Does not wait, and remembers how long it was asked to."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_s(self) -> float:
        return NOW_S

    def monotonic_s(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Hands:
    """An `Ending` that remembers."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.trouble: Exception | None = None

    def end(self, pods: list[PodView], *, why: str) -> None:
        if self.trouble:
            raise self.trouble
        self.ended += [pod.id for pod in pods]


def pod(pod_id: str, *, orphan: bool = True) -> Finding:
    return Finding("pod", pod_id, f"name-{pod_id}", "not in the state", orphan=orphan, usd_per_hr=0.5)


def look(*findings: Finding, root: str = "") -> Look:
    return Look(findings, pods={each.id: PodView(each.id, each.name, "RUNNING") for each in findings}, root=root)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(hands: Hands, clock: Clock) -> Callable[..., Sweeper]:
    def make(*looks: Look) -> Sweeper:
        config: Any = SimpleNamespace(sweep_looks_apart_minutes=APART_MINUTES)
        cloud: Any = SimpleNamespace(ending=hands, client=None)
        made = Sweeper(Workspace(Path("/p"), "s"), config, {}, cloud, clock=clock, show=lambda _: None)
        coming = iter(looks)
        made._looker = SimpleNamespace(look=lambda: next(coming))  # type: ignore[assignment]
        return made

    return make


def test_only_what_both_looks_call_an_orphan_is_ended(make: Callable[..., Sweeper], hands: Hands, clock: Clock) -> None:
    first = look(pod("both"), pod("first"), pod("unclear", orphan=False))
    second = look(pod("both"), pod("second"), pod("unclear"))
    report = make(first, second).sweep(end=True)
    assert hands.ended == ["both"]
    assert clock.slept == [APART_MINUTES * 60]
    assert {found.id: found.ended for found in report.findings} == {"both": True, "second": False, "unclear": False}
    assert report.exit_code == 3


@pytest.mark.parametrize(("end", "found"), [(False, [pod("p")]), (True, []), (True, [pod("p", orphan=False)])])
def test_without_an_order_or_an_orphan_there_is_no_second_look(
    make: Callable[..., Sweeper], hands: Hands, clock: Clock, end: bool, found: list[Finding]
) -> None:
    report = make(look(*found)).sweep(end=end)
    assert (hands.ended, clock.slept) == ([], [])
    assert report.exit_code == (3 if found else 0)


def test_pods_that_stay_are_not_called_ended(make: Callable[..., Sweeper], hands: Hands) -> None:
    hands.trouble = StillThere("pod p still listed", pod_ids=["p"])
    report = make(look(pod("p")), look(pod("p"))).sweep(end=True)
    assert (report.exit_code, report.notes) == (3, ("name-p: not ended: pod p still listed",))


@pytest.mark.parametrize(
    ("answer", "ended", "note"),
    [
        (CompletedProcess([], 0, "", ""), ["p"], ""),
        (CompletedProcess([], 1, "", "error: the stack is currently locked by 1 lock(s)"), [], "an update of this"),
        (CompletedProcess([], 1, "", "[409] Conflict: Another update is currently in progress."), [], "an update of"),
        (CompletedProcess([], 255, "", "error: no credentials"), [], "cannot be seen: the engine fails"),
    ],
)
def test_a_lock_that_lies_elsewhere_is_asked_for_before_anything_is_ended(
    make: Callable[..., Sweeper],
    hands: Hands,
    monkeypatch: pytest.MonkeyPatch,
    answer: CompletedProcess[str],
    ended: list[str],
    note: str,
) -> None:
    monkeypatch.setattr(sweeper, "refresh_root", lambda *_: answer)
    report = make(look(pod("p"), root="urn:root"), look(pod("p"), root="urn:root")).sweep(end=True)
    assert hands.ended == ended
    assert all(note in each for each in report.notes)
    assert bool(report.notes) == bool(note)


# The server's register of nodes


def register(nodes: list[dict[str, Any]], stale: list[str] | int) -> NodeRegister:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/nodes":
            return httpx.Response(200, json={"nodes": [{"id": each["name"], **each} for each in nodes]})
        if isinstance(stale, int):
            return httpx.Response(stale, json={"detail": "hours must be whole"})
        assert float(request.url.params["offline_hours"]) == pytest.approx(600 / 3600)
        return httpx.Response(200, json={"nodes": [{"id": each} for each in stale]})

    return NodeRegister("http://queue", transport=httpx.MockTransport(answer))


ROWS = [
    {"name": "online", "status": "online", "last_heartbeat": "2025-12-31T20:00:00"},
    {"name": "busy", "status": "busy", "last_heartbeat": None},
    {"name": "aware", "status": "offline", "last_heartbeat": "2025-12-31T23:50:00+00:00"},
    {"name": "never", "status": "offline", "last_heartbeat": None},
    {"name": "naive", "status": "offline", "last_heartbeat": "2025-12-31T20:00:00"},
    {"name": "naive-and-stale", "status": "offline", "last_heartbeat": "2025-12-31T20:00:00"},
]


def test_silence_is_told_by_times_with_a_zone_and_else_by_the_servers_own_list() -> None:
    with register(ROWS, ["naive-and-stale", "never"]) as nodes:
        rows = nodes.rows(now_s=NOW_S, silence_s=600)
    found = silences(rows)
    assert found == {"online": 0.0, "busy": 0.0, "aware": 600.0, "naive": 0.0, "naive-and-stale": 600.0}
    assert [row.name for row in rows if row.online] == ["online", "busy"]


def test_a_server_that_cannot_tell_leaves_it_open() -> None:
    with register(ROWS, 422) as nodes:
        found = silences(nodes.rows(now_s=NOW_S, silence_s=600))
    assert (found["naive"], found["naive-and-stale"], found["aware"]) == (None, None, 600.0)


def test_of_two_rows_of_a_name_the_one_that_is_heard_counts() -> None:
    def row(silent_s: float | None) -> Row:
        return Row("id", "n", online=False, silent_s=silent_s)

    assert silences([row(900.0), row(0.0)]) == {"n": 0.0}
    assert silences([row(None), row(0.0)]) == {"n": 0.0}
    assert silences([row(None), row(900.0)]) == {"n": None}
    assert silences([row(700.0), row(900.0), row(float("inf"))]) == {"n": 700.0}
    assert silences([row(float("inf"))]) == {}


@pytest.mark.parametrize(("status", "said"), [(200, ""), (404, ""), (405, "no way to remove"), (500, "answered 500")])
def test_a_row_is_removed_where_the_server_can(status: int, said: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json={}))
    with NodeRegister("http://queue", transport=transport) as nodes:
        if not said:
            nodes.forget("id")
            return
        with pytest.raises(SignalError, match=said):
            nodes.forget("id")


# The tailnet


def test_an_oauth_client_is_as_good_as_a_key() -> None:
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, request.headers["Authorization"].split()[0]))
        if request.url.path == "/api/v2/oauth/token":
            return httpx.Response(200, json={"access_token": "t"})
        devices = [
            {"nodeId": "n1", "hostname": "a", "tags": ["tag:runpod"], "lastSeen": "2025-12-31T23:00:00Z"},
            {"id": "2", "hostname": "b", "connectedToControl": True, "lastSeen": "2020-01-01T00:00:00Z"},
            {"id": "3", "hostname": "c", "lastSeen": None},
        ]
        return httpx.Response(200, json={"devices": devices})

    environ = {"TAILSCALE_OAUTH_CLIENT_ID": "i", "TAILSCALE_OAUTH_CLIENT_SECRET": "s"}
    assert has_credentials(environ)
    assert not has_credentials({"TAILSCALE_OAUTH_CLIENT_ID": "i"})
    with TailnetDevices("http://ts", "-", environ, transport=httpx.MockTransport(answer)) as tailnet:
        devices = tailnet.devices(now_s=NOW_S)
    assert [(device.id, device.offline_s) for device in devices] == [("n1", 3600.0), ("2", 0.0), ("3", None)]
    assert seen == [("/api/v2/oauth/token", "Basic"), ("/api/v2/tailnet/-/devices", "Bearer")]


@pytest.mark.parametrize("key", ["tskey-canary", "tskey-canary\nwith a line"])
def test_no_error_repeats_the_tailnets_key(key: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(403, text="tskey-canary is not welcome"))
    tailnet = TailnetDevices("http://ts", "-", {"TAILSCALE_API_KEY": key}, transport=transport)
    with tailnet, pytest.raises(SignalError) as caught:
        tailnet.devices(now_s=NOW_S)
    assert "canary" not in str(caught.value)
