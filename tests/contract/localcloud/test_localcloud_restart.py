"""A kept cloud is killed and comes back: what it answered is there, what it did not answer may or may not be."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, running, wait_until

A4000 = "NVIDIA RTX A4000"
SLEEPER = ["/bin/sh", "-c", "echo run $SECRET; exec sleep 600"]
BODY = {"name": "x-slot-01", "image": "i", "gpu": {"id": A4000}, "ports": ["22/tcp"]}
FAST: dict[str, Any] = {"boot_s": 0.1, "ssh_s": 0.0, "grace_s": 0.3, "pod_command": SLEEPER}


@pytest.fixture(scope="module")
def kept_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    with running(tmp_path_factory.mktemp("kept"), state="kept", **FAST) as cloud:
        yield cloud


@pytest.fixture
def cloud(kept_cloud: RunningCloud) -> RunningCloud:
    kept_cloud.reset()
    return kept_cloud


@pytest.fixture
def api(cloud: RunningCloud) -> Iterator[httpx.Client]:
    with cloud.client() as client:
        yield client


def create(api: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = api.post("/v2/pods", json={**BODY, **more})
    assert answer.status_code == 201, answer.text
    pod: dict[str, Any] = answer.json()
    return pod


def kill_and_restart(cloud: RunningCloud) -> None:
    cloud.kill()
    cloud.restart()


def bill(cloud: RunningCloud, pod: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = next(line for line in cloud.ledger()["pods"] if line["id"] == pod["id"])
    return line


def status(api: httpx.Client, pod: dict[str, Any]) -> str:
    return str(api.get(f"/v2/pods/{pod['id']}").json()["status"])


def said(cloud: RunningCloud, pod: dict[str, Any]) -> int:
    return (cloud.folder / "logs" / f"{pod['id']}.log").read_text("utf-8").count(" container run hush")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_running_pod_comes_back_as_a_restart_of_its_container_and_was_charged_all_the_time(
    cloud: RunningCloud, api: httpx.Client
) -> None:
    api.post("/v2/account/secrets", json={"name": "key-1", "value": "hush"})
    pod = create(api, env={"SECRET": "{{ RUNPOD_SECRET_key-1 }}"})
    first = cloud.wait_for_event("pod.started", pod_id=pod["id"])
    wait_until(lambda: said(cloud, pod) == 1, what="its first word")
    before = bill(cloud, pod)
    cloud.own([pod["id"]])
    kill_and_restart(cloud)
    wait_until(lambda: gone(first["pid"]), what="end of its first process")
    again = cloud.wait_for_event("pod.started", since=first["seq"], pod_id=pod["id"])
    assert again["ssh_port"] != first["ssh_port"]
    shown = api.get(f"/v2/pods/{pod['id']}").json()
    assert {**shown, "status": "", "runtime": "", "ssh": "", "actions": "", "startedAt": ""} == {
        **pod,
        **dict.fromkeys(("status", "runtime", "ssh", "actions", "startedAt"), ""),
    }
    after = bill(cloud, pod)
    assert (after["created_at"], after["spans"]) == (before["created_at"], before["spans"])
    assert after["owner_lost_at"] is None
    wait_until(lambda: said(cloud, pod) == 2, what="its second word")


def test_everything_else_is_as_it_was(cloud: RunningCloud, api: httpx.Client) -> None:
    cloud.settings(boot_s=0.05, stock={A4000: 5}, balance_usd=9.0)
    stopped, ended, stuck = (create(api, name=name) for name in ("stopped", "ended", "stuck"))
    for pod in (stopped, ended, stuck):
        cloud.wait_for_event("pod.started", pod_id=pod["id"])
    cloud.fault_kind("host-death", name_contains="stuck")
    wait_until(lambda: status(api, stuck) == "ERROR", what="ERROR")
    api.post(f"/v2/pods/{stopped['id']}/action", json={"action": "stop"})
    api.delete(f"/v2/pods/{ended['id']}")
    fault = cloud.fault_kind("list-lag", nth=3, delay_s=2.5)
    secret = api.post("/v2/account/secrets", json={"name": "a", "value": "v", "description": "d"}).json()
    events, lines, settings = cloud.events(), cloud.ledger()["pods"], cloud.control.get("/_emu/settings").json()
    kill_and_restart(cloud)
    assert [pod["name"] for pod in api.get("/v2/pods").json()["pods"]] == ["stopped", "stuck"]
    assert (status(api, stopped), status(api, stuck)) == ("EXITED", "ERROR")
    assert api.get(f"/v2/account/secrets/{secret['id']}").json() == secret
    assert cloud.events()[: len(events)] == events
    assert [line["spans"] for line in cloud.ledger()["pods"]] == [line["spans"] for line in lines]
    assert cloud.control.get("/_emu/settings").json() == settings
    assert cloud.ledger()["balance_usd"] == pytest.approx(9.0, abs=0.01)
    armed = next(row for row in cloud.faults() if row["id"] == fault)
    assert (armed["matched"], armed["delay_s"]) == (1, 2.5)
    assert cloud.fault_kind("list-lag") not in {row["id"] for row in cloud.faults()[:-1]}
    new = create(api, name="new")
    assert new["id"] not in {line["id"] for line in lines}
    assert len({row["seq"] for row in cloud.events()}) == len(cloud.events())


def test_the_tailnet_is_as_it_was(cloud: RunningCloud) -> None:
    headers = {"Authorization": f"Bearer {cloud.tailscale_api_key}"}
    with httpx.Client(base_url=f"{cloud.tailscale_url}/api/v2/tailnet/-", headers=headers, trust_env=False) as tail:
        rights = {"devices": {"create": {"reusable": True, "tags": ["tag:pod"]}}}
        key = tail.post("/keys", json={"capabilities": rights}).json()
        tail.post("/acl", content='{"grants": []}', headers={"Content-Type": "application/hujson"})
        kill_and_restart(cloud)
        assert tail.get(f"/keys/{key['id']}").json()["tags"] == ["tag:pod"]
        assert tail.get("/acl", headers={"Accept": "application/hujson"}).text == '{"grants": []}'


@pytest.mark.parametrize(("kind", "there"), [("cloud-dies", False), ("cloud-dies-after", True)])
def test_it_can_be_told_to_die_at_a_request_and_dies_there_once(
    cloud: RunningCloud, api: httpx.Client, kind: str, there: bool
) -> None:
    api.get("/v2/pods")
    fault = cloud.fault_kind(kind, nth=2)
    api.get("/v2/pods")
    with pytest.raises(httpx.TransportError):
        create(api)
    cloud.wait_for_death()
    cloud.restart()
    assert [pod["name"] for pod in api.get("/v2/pods").json()["pods"]] == ([BODY["name"]] if there else [])
    assert [line["name"] for line in cloud.ledger()["pods"]] == ([BODY["name"]] if there else [])
    assert next(row["hits"] for row in cloud.faults() if row["id"] == fault) == 1


def test_what_was_answered_is_there_whenever_it_is_killed(cloud: RunningCloud, api: httpx.Client) -> None:
    """Six kills, each in the midst of a volley of creates and deletes."""
    cloud.settings(stock={A4000: 500})
    answered: set[str] = set()
    for volley in range(6):
        seen = cloud.last_seq()
        words = (cloud.folder / "events.jsonl", cloud.pid, seen + 9 + 5 * volley)
        killer = threading.Thread(target=_kill_at_event, args=words)
        killer.start()
        with contextlib.suppress(httpx.TransportError):
            while True:
                created = create(api)["id"]
                answered.add(created)
                ended = next(iter(answered))
                assert api.delete(f"/v2/pods/{ended}").status_code == 204
                answered.discard(ended)
        killer.join()
        cloud.wait_for_death()
        cloud.restart()
        there = {pod["id"] for pod in api.get("/v2/pods").json()["pods"]}
        unanswered = there ^ answered
        assert len(unanswered) <= 1
        answered = there
        bills = cloud.ledger()["pods"]
        assert {line["id"] for line in bills if line["ended_at"] is None} == there


def _kill_at_event(events: Path, pid: int, seq: int) -> None:
    """SIGKILL when the event is written."""
    with events.open("rb") as file:
        text = b""
        while f'"seq": {seq}, '.encode() not in text:
            text = text[-100:] + file.read()
    os.kill(pid, signal.SIGKILL)


def test_down_keeps_the_account_and_a_reset_forgets_it(tmp_path: Path) -> None:
    with running(tmp_path, state="kept", **FAST) as cloud, cloud.client() as api:
        pod = create(api)
        started = cloud.wait_for_event("pod.started", pod_id=pod["id"])
        os.kill(cloud.pid, signal.SIGTERM)
        cloud.wait_for_death()
        wait_until(lambda: gone(started["pid"]), what="end of its process")
        cloud.restart()
        assert [row["id"] for row in api.get("/v2/pods").json()["pods"]] == [pod["id"]]
        cloud.reset()
        kill_and_restart(cloud)
        assert api.get("/v2/pods").json()["pods"] == cloud.ledger()["pods"] == []
        kinds = [event["kind"] for event in cloud.events()]
        assert kinds[:2] == ["cloud.reset", "cloud.started"]
        mode = (tmp_path / "journal.jsonl").stat().st_mode & 0o777
        assert mode == 0o600


def test_in_memory_a_new_daemon_begins_with_nothing(tmp_path: Path) -> None:
    with running(tmp_path, **FAST) as cloud, cloud.client() as api:
        create(api)
        kill_and_restart(cloud)
        assert api.get("/v2/pods").json()["pods"] == []
        assert not (tmp_path / "journal.jsonl").exists()
