"""Faults at named points: what the crash tests of the fleet stand on."""

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from localcloud.testing import RunningCloud, wait_until

BODY = {"name": "x-slot-01", "image": "i", "gpu": {"id": "NVIDIA RTX A4000"}}
Create = Callable[..., dict[str, Any]]


class Background:
    """One request in a thread of its own."""

    def __init__(self, cloud: RunningCloud, method: str, path: str, **kwargs: Any) -> None:
        self.answer: httpx.Response | None = None
        self.error: httpx.HTTPError | None = None
        self._client = cloud.client()
        self._thread = threading.Thread(target=self._run, args=(method, path, kwargs))
        self._thread.start()

    def _run(self, method: str, path: str, kwargs: dict[str, Any]) -> None:
        try:
            self.answer = self._client.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            self.error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> httpx.Response:
        self._thread.join(10)
        assert self.answer is not None, self.error
        return self.answer


def post_and_leave(cloud: RunningCloud, leave_when: Callable[[], None]) -> None:
    """Send a create over a bare socket and hang up, as a killed engine does."""
    address = urlsplit(cloud.runpod_url)
    body = json.dumps(BODY).encode()
    head = (
        f"POST /v2/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {cloud.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as sock:
        sock.sendall(head.encode() + body)
        leave_when()


def names(cloud: RunningCloud) -> list[str]:
    return [pod["name"] for pod in cloud.live_pods()]


def test_a_hold_before_the_commit_blocks_only_that_request_and_then_lets_it_commit(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    fault = cloud.fault("pods.create", "hold", name_contains="slot-01")
    held = Background(cloud, "POST", "/v2/pods", json=BODY)
    cloud.wait_for_hit(fault)
    assert cloud.events("fault.hit")[0] | {"seq": 0, "ts": 0} == {
        "seq": 0,
        "ts": 0,
        "kind": "fault.hit",
        "fault_id": fault,
        "op": "pods.create",
        "phase": "before",
        "action": "hold",
        "name": "x-slot-01",
        "nth": 1,
    }
    assert cloud.faults()[0]["holding"] == 1
    create(name="x-slot-02")
    assert names(cloud) == ["x-slot-02"]
    assert not held.done()
    cloud.release(fault)
    assert held.result().status_code == 201
    assert names(cloud) == ["x-slot-02", "x-slot-01"]


def test_a_create_held_before_the_commit_is_not_committed_when_its_client_has_gone(cloud: RunningCloud) -> None:
    fault = cloud.fault("pods.create", "hold")
    post_and_leave(cloud, lambda: cloud.wait_for_hit(fault))
    request = cloud.wait_for_event("request", op="pods.create")
    assert (request["status"], request["outcome"]) == (None, "client-gone")
    cloud.release(fault)
    assert cloud.pods() == []


def test_a_create_held_after_the_commit_exists_although_nobody_heard_of_it(
    cloud: RunningCloud, api: httpx.Client
) -> None:
    fault = cloud.fault("pods.create", "hold", "after")
    post_and_leave(cloud, lambda: cloud.wait_for_hit(fault))
    assert names(cloud) == ["x-slot-01"]
    kinds = [event["kind"] for event in cloud.events() if event["kind"] in ("pod.created", "fault.hit")]
    assert kinds == ["pod.created", "fault.hit"]
    assert cloud.wait_for_event("request", op="pods.create")["outcome"] == "client-gone"


def test_a_held_answer_comes_when_it_is_released(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    pod = create()
    fault = cloud.fault("pods.delete", "hold", "after")
    held = Background(cloud, "DELETE", f"/v2/pods/{pod['id']}")
    cloud.wait_for_hit(fault)
    assert api.get("/v2/pods").json()["pods"] == []
    assert not held.done()
    cloud.release()
    assert held.result().status_code == 204
    assert cloud.events("fault.hit")[0]["name"] == pod["name"]


@pytest.mark.parametrize(("phase", "committed"), [("before", False), ("after", True)])
def test_a_dropped_connection_brings_no_answer(cloud: RunningCloud, phase: str, committed: bool) -> None:
    cloud.fault("pods.create", "drop", phase)
    lost = Background(cloud, "POST", "/v2/pods", json=BODY)
    wait_until(lost.done, what="the client's error")
    assert isinstance(lost.error, httpx.RemoteProtocolError | httpx.ReadError)
    assert names(cloud) == (["x-slot-01"] if committed else [])
    assert cloud.wait_for_event("request", op="pods.create")["outcome"] == "dropped"


@pytest.mark.parametrize(("phase", "committed"), [("before", False), ("after", True)])
def test_a_status_replaces_the_answer(cloud: RunningCloud, api: httpx.Client, phase: str, committed: bool) -> None:
    cloud.fault("pods.create", "status", phase, status=500, detail="boom", headers={"X-A": "b"})
    answer = api.post("/v2/pods", json=BODY)
    assert answer.status_code == 500
    assert answer.json() == {"title": "Internal Server Error", "status": 500, "detail": "boom"}
    assert answer.headers["x-a"] == "b"
    assert answer.headers["x-request-id"]
    assert names(cloud) == (["x-slot-01"] if committed else [])
    assert api.post("/v2/pods", json=BODY).status_code == 201


@pytest.mark.parametrize(
    ("status", "words"), [(400, "no longer any instances"), (402, "balance is too low"), (429, "rate limit exceeded")]
)
def test_known_refusals_have_the_service_s_words(
    cloud: RunningCloud, api: httpx.Client, status: int, words: str
) -> None:
    cloud.fault("pods.create", "status", status=status)
    answer = api.post("/v2/pods", json=BODY)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert ("retry-after" in answer.headers) == (status == 429)


def test_the_nth_of_a_list_is_late(cloud: RunningCloud, api: httpx.Client) -> None:
    cloud.fault("pods.list", "delay", nth=2, delay_s=0.4)
    took = []
    for _ in range(3):
        start_s = time.monotonic()
        assert api.get("/v2/pods").status_code == 200
        took.append(time.monotonic() - start_s)
    assert took[1] >= 0.4
    assert took[0] < took[1]
    assert took[2] < took[1]


def test_a_pod_can_be_kept_from_booting_or_fail_to(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    never = cloud.fault("pods.boot", "hold", name_contains="never")
    cloud.fault("pods.boot", "status", "after", name_contains="broken", detail="host failure")
    stuck, broken, fine = create(name="never"), create(name="broken"), create(name="fine")
    cloud.wait_for_event("pod.started", pod_id=fine["id"])
    cloud.wait_for_event("pod.failed", pod_id=broken["id"], detail="host failure")
    assert api.get(f"/v2/pods/{stuck['id']}").json()["status"] == "PROVISIONING"
    assert api.get(f"/v2/pods/{broken['id']}").json()["status"] == "ERROR"
    cloud.release(never)
    cloud.wait_for_event("pod.started", pod_id=stuck["id"])


def test_a_reset_lets_held_requests_go_and_commits_none_of_them(cloud: RunningCloud) -> None:
    fault = cloud.fault("pods.create", "hold")
    held = Background(cloud, "POST", "/v2/pods", json=BODY)
    cloud.wait_for_hit(fault)
    cloud.reset()
    assert held.result().status_code == 503
    assert cloud.pods() == []


@pytest.mark.parametrize("wrong", [{"op": "pods.explode"}, {"action": "burn"}, {"nth": 0}, {"colour": 1}])
def test_a_fault_that_can_never_hit_is_refused(cloud: RunningCloud, wrong: dict[str, Any]) -> None:
    body = {"op": "pods.list", "action": "hold", **wrong}
    assert cloud.control.post("/_emu/faults", json=body).status_code == 422
    assert cloud.control.delete("/_emu/faults/none").status_code == 404
    assert cloud.control.patch("/_emu/settings", json={"boot": 1}).status_code == 422
    assert cloud.control.patch("/_emu/settings", json={"stock": {"NVIDIA": 1}}).status_code == 422
