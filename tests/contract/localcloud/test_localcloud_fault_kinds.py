"""The faults by name: each does what it says, once, and is counted."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, wait_until

A4000 = "NVIDIA RTX A4000"
BODY = {"name": "x-slot-01", "image": "i", "gpu": {"id": A4000}}
TEXT = ["sh", "-c", "sleep 60"]
Create = Callable[..., dict[str, Any]]


def names(api: httpx.Client) -> list[str]:
    return [pod["name"] for pod in api.get("/v2/pods").json()["pods"]]


def hits(cloud: RunningCloud, fault: str) -> int:
    return next(int(row["hits"]) for row in cloud.faults() if row["id"] == fault)


def state(api: httpx.Client, pod: dict[str, Any]) -> dict[str, Any]:
    answer = api.get(f"/v2/pods/{pod['id']}")
    body: dict[str, Any] = answer.json()
    return body


def until(api: httpx.Client, pod: dict[str, Any], status: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        now = state(api, pod)
        return now if now["status"] == status else None

    return wait_until(there, what=status)


def running(cloud: RunningCloud, api: httpx.Client, create: Create, **more: Any) -> dict[str, Any]:
    pod = create(**more)
    cloud.wait_for_event("pod.started", pod_id=pod["id"])
    return state(api, pod)


def system_log(cloud: RunningCloud, pod: dict[str, Any]) -> str:
    return (cloud.folder / "logs" / f"{pod['id']}.log").read_text("utf-8")


# -- requests ---------------------------------------------------------------------------------------------------------
def test_a_create_that_answers_500_left_a_pod(cloud: RunningCloud, api: httpx.Client) -> None:
    fault = cloud.fault_kind("create-then-500")
    answer = api.post("/v2/pods", json=BODY)
    assert (answer.status_code, answer.json()["detail"][:20]) == (500, "Something went wrong")
    assert names(api) == ["x-slot-01"]
    assert hits(cloud, fault) == 1


@pytest.mark.parametrize(("kind", "options"), [("create-then-drop", {}), ("create-then-hang", {"delay_s": 0.2})])
def test_a_create_without_an_answer_left_a_pod(
    cloud: RunningCloud, api: httpx.Client, kind: str, options: dict[str, Any]
) -> None:
    cloud.fault_kind(kind, **options)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        api.post("/v2/pods", json=BODY)
    assert names(api) == ["x-slot-01"]


def test_one_create_can_make_two_pods(cloud: RunningCloud, api: httpx.Client) -> None:
    cloud.fault_kind("create-twice", nth=2)
    first, second = (api.post("/v2/pods", json={**BODY, "name": name}).json() for name in ("one", "two"))
    assert names(api) == ["one", "two", "two"]
    assert [pod["id"] for pod in api.get("/v2/pods").json()["pods"]][:2] == [first["id"], second["id"]]
    assert len(cloud.ledger()["pods"]) == 3


def test_a_pod_can_be_made_when_nobody_waits_for_it_any_more(cloud: RunningCloud, api: httpx.Client) -> None:
    fault = cloud.fault_kind("create-late", delay_s=0.5)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v2/pods", json=BODY, timeout=0.2)
    assert hits(cloud, fault) == 1
    assert names(api) == []
    wait_until(lambda: names(api) == ["x-slot-01"], what="the late pod")


def test_a_new_pod_can_be_invisible_for_a_while(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    cloud.fault_kind("create-hidden", delay_s=1.5)
    pod = create()
    assert names(api) == []
    assert api.get(f"/v2/pods/{pod['id']}").status_code == 404
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == 404
    wait_until(lambda: names(api) == [pod["name"]], what="the pod in the list")
    assert state(api, pod)["id"] == pod["id"]


def test_a_list_can_be_late(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    old = running(cloud, api, create, name="old")
    time.sleep(1.0)
    fault = cloud.fault_kind("list-lag", delay_s=1.0)
    new = create(name="new")
    api.delete(f"/v2/pods/{old['id']}")
    shown = api.get("/v2/pods").json()["pods"]
    assert [(pod["name"], pod["status"]) for pod in shown] == [("old", "RUNNING")]
    assert api.get(f"/v2/pods/{old['id']}").status_code == 404
    wait_until(lambda: names(api) == ["new"], what="the list of now")
    assert hits(cloud, fault) >= 2
    assert state(api, new)["name"] == "new"


def test_a_list_can_be_stale_once_for_the_pods_named(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    create(name="one")
    create(name="two")
    cloud.fault_kind("list-stale-once")
    assert (names(api), names(api)) == (["one"], ["one", "two"])
    cloud.fault_kind("list-stale-once", name_contains="one")
    assert (names(api), names(api)) == (["one", "two"], ["one", "two"])


def test_a_page_can_be_lost(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    for name in ("one", "two", "three"):
        create(name=name)
    cloud.fault_kind("page-lost")
    assert (names(api), names(api)) == (["one"], ["one", "two", "three"])
    cloud.fault_kind("page-lost", name_contains="two")
    assert (names(api), names(api)) == (["one", "three"], ["one", "two", "three"])


@pytest.mark.parametrize(("kind", "status"), [("delete-stays", 204), ("delete-404", 404)])
def test_a_delete_can_come_to_nothing(
    cloud: RunningCloud, api: httpx.Client, create: Create, kind: str, status: int
) -> None:
    pod = create()
    cloud.fault_kind(kind, name_contains="slot-01")
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == status
    assert names(api) == [pod["name"]]
    assert cloud.ledger()["usd_per_hr"] > 0
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == 204
    assert names(api) == []


def test_any_request_can_meet_the_limit_or_a_page_of_the_proxy(cloud: RunningCloud, api: httpx.Client) -> None:
    cloud.fault_kind("rate-limited", delay_s=7)
    limited = api.get("/v2/catalog/gpus")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    cloud.fault_kind("cloudflare-1015", op="secrets.list")
    assert api.get("/v2/pods").status_code == 200
    page = api.get("/v2/account/secrets")
    assert (page.status_code, page.headers["content-type"]) == (429, "text/html; charset=UTF-8")
    assert "Error 1015" in page.text
    for kind, status in (("cloudflare-502", 502), ("cloudflare-1010", 403)):
        cloud.fault_kind(kind)
        assert api.get("/v2/pods").status_code == status


def test_capacity_comes_and_goes_the_same_way_for_the_same_seed(cloud: RunningCloud, api: httpx.Client) -> None:
    def answers(seed: int) -> list[int]:
        fault = cloud.fault_kind("capacity-flap", seed=seed)
        found = [api.post("/v2/pods", json={**BODY, "image": "i", "gpu": {"id": "none"}}) for _ in range(12)]
        cloud.release(fault)
        return [int("no longer any" in answer.json()["detail"]) for answer in found]

    first, again, other = answers(1), answers(1), answers(2)
    assert first == again != other
    assert 0 < sum(first) < 12


# -- boot -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "words"), [("boot-null", ""), ("driver-old", "unsatisfied condition: cuda>=")])
def test_a_pod_can_be_running_and_never_run(
    cloud: RunningCloud, api: httpx.Client, create: Create, kind: str, words: str
) -> None:
    cloud.fault_kind(kind)
    pod = create(ports=["22/tcp"])
    now = until(api, pod, "RUNNING")
    assert (now["runtime"], now["ssh"]["direct"], now["cost"]) == (None, None, 0.25)
    assert words in system_log(cloud, pod)
    assert cloud.events("pod.started") == []
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == 204


def test_a_boot_can_end_in_error_or_exited(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    cloud.fault_kind("boot-error", name_contains="one", detail="layer does not exist")
    cloud.fault_kind("boot-exited", name_contains="two")
    one, two = create(name="one"), create(name="two")
    assert (until(api, one, "ERROR")["cost"], until(api, two, "EXITED")["cost"]) == (0.25, 0.0)
    assert "layer does not exist" in system_log(cloud, one)
    assert "Exited by Runpod" in system_log(cloud, two)
    assert cloud.ledger()["usd_per_hr"] == 0.25


def test_a_secret_can_be_missing_at_boot(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    api.post("/v2/account/secrets", json={"name": "key-1", "value": "v"})
    cloud.fault_kind("secret-missing")
    env = {"KEY": "{{ RUNPOD_SECRET_key-1 }}"}
    pod = create(env=env)
    until(api, pod, "ERROR")
    assert "secret key-1 of variable KEY does not exist" in system_log(cloud, pod)
    until(api, create(env=env), "RUNNING")


def test_an_image_can_be_slow(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    cloud.fault_kind("slow-pull", delay_s=0.4)
    pod = create()
    started = cloud.wait_for_event("pod.started", pod_id=pod["id"])
    assert started["ts"] - cloud.ledger()["pods"][0]["created_at"] >= 0.5


# -- a running pod ----------------------------------------------------------------------------------------------------
def test_a_host_can_die_under_a_running_pod(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    one, two = (running(cloud, api, create, name=name) for name in ("one", "two"))
    cloud.fault_kind("host-death", name_contains="one")
    cloud.fault_kind("host-gone", name_contains="two")
    now = until(api, one, "ERROR")
    assert (now["runtime"], now["cost"]) == (None, 0.25)
    assert cloud.wait_for_event("pod.ended")["reason"] == "host"
    assert names(api) == ["one"]
    assert api.get(f"/v2/pods/{two['id']}").status_code == 404
    assert cloud.ledger()["usd_per_hr"] == 0.25


def test_a_pod_that_starts_later_meets_a_fault_that_waits_for_it(cloud: RunningCloud, create: Create) -> None:
    fault = cloud.fault_kind("host-death", nth=2, delay_s=0.1)
    create(name="one")
    cloud.wait_for_event("pod.started", name="one")
    create(name="two")
    assert cloud.wait_for_event("pod.failed")["name"] == "two"
    assert hits(cloud, fault) == 1


def test_a_preempted_pod_is_warned_and_then_exited(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    script = "trap 'sleep 0.3; echo warned; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    pod = running(cloud, api, create, cmd=["-c", script])
    wait_until(lambda: "up" in system_log(cloud, pod), what="the trap")
    cloud.fault_kind("spot-preempt")
    assert until(api, pod, "EXITED")["cost"] == 0.0
    assert "warned" in system_log(cloud, pod)
    assert cloud.ledger()["usd_per_hr"] == 0
    assert api.post(f"/v2/pods/{pod['id']}/action", json={"action": "start"}).status_code == 200
    until(api, pod, "RUNNING")


def test_a_restart_changes_ports_and_shows_the_old_ones_for_a_while(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = running(cloud, api, create, ports=["22/tcp"])
    seen = cloud.last_seq()
    cloud.fault_kind("port-change", delay_s=1.5)
    new = cloud.wait_for_event("pod.started", since=seen, pod_id=pod["id"])["ssh_port"]
    assert state(api, pod)["ssh"]["direct"]["port"] == pod["ssh"]["direct"]["port"] != new
    wait_until(lambda: state(api, pod)["ssh"]["direct"]["port"] == new, what="the new port")


# -- orders -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "create-thrice"}, "there is no 'create-thrice'; allowed: create-then-500, "),
        ({"kind": "list-lag", "op": "pods.get"}, "is about pods.list alone"),
        ({"kind": "rate-limited", "op": "pods.boot"}, "is about requests"),
        ({"kind": "list-lag", "phase": "after"}, "has its own phase"),
        ({"kind": "list-lag", "probability": 0}, "probability: "),
        ({"kind": "list-lag", "times": -1}, "times: "),
        ({"op": "pods.boot", "action": "die"}, "pods.boot is no request: its actions are hold, status, drop, delay"),
        ({"op": "pods.get"}, "needs kind, or op and action"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_named(
    cloud: RunningCloud, body: dict[str, Any], words: str
) -> None:
    answer = cloud.control.post("/_emu/faults", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["errors"][0]


def test_a_fault_for_ever_hits_until_it_is_removed(cloud: RunningCloud, api: httpx.Client) -> None:
    fault = cloud.fault("pods.list", "status", times=0, status=503)
    assert [api.get("/v2/pods").status_code for _ in range(3)] == [503, 503, 503]
    cloud.release(fault)
    assert api.get("/v2/pods").status_code == 200


def test_a_star_is_any_request_and_no_pod_s_boot(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    fault = cloud.fault("*", "status", nth=3, status=500)
    statuses = [api.get("/v2/pods").status_code, create()["status"], api.get("/v2/account/secrets").status_code]
    assert statuses == [200, "PROVISIONING", 500]
    cloud.wait_for_event("pod.started")
    assert next(row["matched"] for row in cloud.faults() if row["id"] == fault) == 3
