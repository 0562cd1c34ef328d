"""Pods over the wire: created, paged, booted, logged, acted upon, ended; stock and money follow."""

import ctypes
import json
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.localcloud.sessions import SETSID

from localcloud.testing import RunningCloud, wait_until

A4000 = "NVIDIA RTX A4000"
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
Create = Callable[..., dict[str, Any]]


def until_running(api: httpx.Client, pod_id: str) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        pod: dict[str, Any] = api.get(f"/v2/pods/{pod_id}").json()
        return pod if pod["status"] == "RUNNING" else None

    return wait_until(probe, what="RUNNING")


def host(cloud: RunningCloud, pod_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(pod["host"] for pod in cloud.pods() if pod["id"] == pod_id)
    return found


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_pod_goes_from_provisioning_to_running_as_a_process_of_its_own(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(ports=["22/tcp", "9464/tcp", "8000/http"])
    assert pod["status"] == "PROVISIONING"
    assert (pod["runtime"], pod["ssh"]["direct"], pod["startedAt"]) == (None, None, None)
    assert pod["actions"] == ["stop", "terminate"]
    running = until_running(api, pod["id"])
    where = host(cloud, pod["id"])
    assert alive(where["pid"])
    assert os.getpgid(where["pid"]) == where["pid"]
    assert str(Path(f"/proc/{where['pid']}/cwd").readlink()) == where["root"]
    assert running["ssh"]["direct"] == {
        "host": "127.0.0.1",
        "port": where["ssh_port"],
        "username": "root",
        "command": f"ssh root@127.0.0.1 -p {where['ssh_port']}",
    }
    ports = {(row["private"], row["type"]): row for row in running["runtime"]["ports"]}
    assert ports[22, "tcp"] == {"private": 22, "public": where["ssh_port"], "type": "tcp", "ip": "127.0.0.1"}
    assert ports[8000, "http"]["public"] is None
    assert running["cost"] == 0.25
    assert running["actions"] == ["stop", "restart", "terminate"]


def test_the_process_s_environment_is_exactly_the_contract_s_with_secrets_resolved(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    assert api.post("/v2/account/secrets", json={"name": "fleet-key", "value": "s3cret"}).status_code == 201
    env = {"LC_ALL": "C", "PODFLEET_UID": "u", "PODFLEET_TAILNET_KEY": "{{ RUNPOD_SECRET_fleet-key }}"}
    pod = create(ports=["22/tcp"], env=env, entrypoint=["sleep"], cmd=["600"])  # a shell would add PWD
    assert pod["env"]["PODFLEET_TAILNET_KEY"] == "{{ RUNPOD_SECRET_fleet-key }}"
    until_running(api, pod["id"])
    where = host(cloud, pod["id"])
    raw = Path(f"/proc/{where['pid']}/environ").read_bytes().decode().rstrip("\0").split("\0")
    seen = dict(line.split("=", 1) for line in raw)
    assert set(seen) == {
        *("PATH", "HOME", "LANG", "PODFLEET_ROOT", "TMPDIR"),
        *("RUNPOD_POD_ID", "RUNPOD_DC_ID", "RUNPOD_POD_HOSTNAME", "RUNPOD_GPU_COUNT", "RUNPOD_CPU_COUNT"),
        *("RUNPOD_PUBLIC_IP", "RUNPOD_TCP_PORT_22", "RUNPOD_API_KEY", "CUDA_VERSION", "PYTORCH_VERSION"),
        *("LC_ALL", "PODFLEET_UID", "PODFLEET_TAILNET_KEY"),
    }
    assert seen["PODFLEET_TAILNET_KEY"] == "s3cret"
    assert seen["PODFLEET_ROOT"] == seen["HOME"] == where["root"]
    assert seen["RUNPOD_TCP_PORT_22"] == str(where["ssh_port"])
    assert "s3cret" not in json.dumps(cloud.events())
    assert "s3cret" not in json.dumps(cloud.pods())


def landlock_abi() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))


@pytest.mark.skipif(landlock_abi() < 1, reason="this kernel has no Landlock: a pod's process sees the whole machine")
def test_a_pod_sees_its_own_disk_and_the_system_and_nothing_else_of_the_machine(
    cloud: RunningCloud, create: Create, tmp_path: Path
) -> None:
    (tmp_path / "references.json").write_text("what nobody may read")
    script = f"cat {tmp_path}/references.json; ls {tmp_path}; echo mine > kept && cat kept && echo done; sleep 600"
    pod = create(entrypoint=["sh", "-c"], cmd=[script])
    log = cloud.folder / "logs" / f"{pod['id']}.log"
    wait_until(lambda: log.exists() and "done" in log.read_text(), what="the script's last word")
    text = log.read_text()
    assert text.count("Permission denied") == 2
    assert "mine" in text
    assert "nobody may read" not in text


@pytest.mark.skipif(landlock_abi() < 3, reason="this kernel's Landlock does not know truncation")
def test_a_pod_cannot_empty_a_file_of_the_machine(cloud: RunningCloud, create: Create, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("still here")
    script = (
        f"import os\ntry: os.truncate({str(kept)!r}, 0)\nfinally: os.truncate(open('own', 'w').name, 0); print('done')"
    )
    pod = create(entrypoint=[sys.executable, "-u", "-c"], cmd=[script])
    log = cloud.folder / "logs" / f"{pod['id']}.log"
    wait_until(lambda: log.exists() and "done" in log.read_text(), what="the script's last word")
    assert kept.read_text() == "still here"


def test_a_missing_secret_is_an_error_state_that_says_which(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(env={"A": "{{ RUNPOD_SECRET_gone }}"})
    failed = cloud.wait_for_event("pod.failed", pod_id=pod["id"])
    assert "gone" in failed["detail"]
    now = api.get(f"/v2/pods/{pod['id']}").json()
    assert (now["status"], now["cost"]) == ("ERROR", 0.25)
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == 204


def test_what_the_request_says_replaces_the_image_s_command(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    create(name="one", cmd=["-c", "echo by cmd; exit 3"])
    cloud.wait_for_event("pod.exited", name="one", rc=3)
    create(name="two", args="-c 'exit 4'")
    cloud.wait_for_event("pod.exited", name="two", rc=4)
    create(name="three", entrypoint=["/bin/sh", "-c"], cmd=["kill -9 $$"])
    cloud.wait_for_event("pod.exited", name="three", rc=137)
    create(name="four", entrypoint=["no-such-program"])
    cloud.wait_for_event("pod.exited", name="four", rc=127)


def test_names_are_not_unique_and_the_list_is_paged(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    cloud.settings(page_size=2)
    ids = [create(name="same")["id"] for _ in range(5)]
    first = api.get("/v2/pods", params={"name": "ignored"}).json()
    assert [pod["id"] for pod in first["pods"]] == ids[:2]
    assert first["pagination"]["hasNextPage"] is True
    api.delete(f"/v2/pods/{ids[1]}")
    second = api.get("/v2/pods", params={"cursor": first["pagination"]["nextCursor"]}).json()
    assert [pod["id"] for pod in second["pods"]] == ids[2:4]
    third = api.get("/v2/pods", params={"cursor": second["pagination"]["nextCursor"]}).json()
    assert [pod["id"] for pod in third["pods"]] == ids[4:]
    assert third["pagination"] == {"hasNextPage": False, "nextCursor": ""}
    assert api.get("/v2/pods", params={"cursor": "!"}).status_code == 422


def test_a_deleted_pod_is_gone_at_once_and_its_stubborn_process_a_grace_later(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(grace_s=0.5)
    script = "trap 'echo got TERM' TERM; echo ready; while :; do sleep 0.05; done"
    pod = create(cmd=["-c", script])
    until_running(api, pod["id"])
    read_logs(api, pod["id"], until="ready")
    pid = host(cloud, pod["id"])["pid"]
    answer = api.delete(f"/v2/pods/{pod['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert alive(pid)
    assert api.get("/v2/pods").json()["pods"] == []
    assert api.get(f"/v2/pods/{pod['id']}").status_code == 404
    assert api.delete(f"/v2/pods/{pod['id']}").status_code == 404
    wait_until(lambda: not alive(pid), timeout_s=3, what="end of the process")
    log = (cloud.folder / "logs" / f"{pod['id']}.log").read_text("utf-8")
    assert "container got TERM" in log
    wait_until(lambda: not Path(host(cloud, pod["id"])["root"]).exists(), what="end of the disk")


def test_an_exited_process_starts_again_on_a_clean_disk_while_the_money_runs(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(ports=["22/tcp"], cmd=["-c", "test -e mark && echo dirty; echo x > mark; sleep 0.2; exit 5"])
    first = cloud.wait_for_event("pod.started", pod_id=pod["id"])
    cloud.wait_for_event("pod.exited", pod_id=pod["id"], rc=5)
    cloud.wait_for_event("pod.restarted", pod_id=pod["id"])
    second = wait_until(lambda: cloud.events("pod.started")[1:], what="second start")[0]
    assert second["pid"] != first["pid"]
    assert second["ssh_port"] != first["ssh_port"]
    row = next(row for row in cloud.ledger()["pods"] if row["id"] == pod["id"])
    assert row["ended_at"] is None
    assert api.get(f"/v2/pods/{pod['id']}").json()["cost"] == 0.25
    assert "dirty" not in (cloud.folder / "logs" / f"{pod['id']}.log").read_text("utf-8")


def test_nothing_of_a_container_outlives_its_first_process(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(restart_backoff_s=60)
    pod = create(cmd=["-c", f"{SETSID} sh -c 'echo pid $$; exec sleep 600' & sleep 0.5; exit 0"])
    line = read_logs(api, pod["id"], until="pid")[-1]
    daemonized = int(line["line"].split()[1])
    assert alive(daemonized)
    cloud.wait_for_event("pod.exited", pod_id=pod["id"])
    wait_until(lambda: not alive(daemonized), timeout_s=3, what="end of the daemonized child")


def test_actions_are_legal_or_409(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    def act(action: str) -> httpx.Response:
        return api.post(f"/v2/pods/{pod['id']}/action", json={"action": action})

    pod = create()
    assert act("restart").status_code == 409
    running = until_running(api, pod["id"])
    assert act("start").status_code == 409
    stopped = act("stop").json()
    assert (stopped["status"], stopped["cost"], stopped["runtime"]) == ("EXITED", 0.0, None)
    assert stopped["actions"] == ["start", "terminate"]
    assert act("stop").json()["detail"] == "cannot stop a pod that is EXITED"
    assert act("start").json()["status"] == "PROVISIONING"
    again = until_running(api, pod["id"])
    assert again["createdAt"] == running["createdAt"]
    assert act("restart").json()["status"] == "STARTING"
    wait_until(lambda: len(cloud.events("pod.started")) == 3, what="third start")
    answer = act("terminate")
    assert (answer.status_code, answer.content) == (204, b"")
    assert act("terminate").status_code == 404
    assert act("explode").status_code == 422


def test_stock_is_used_up_by_creates_and_given_back(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    cloud.settings(stock={A4000: 1})
    pod = create()
    refused = api.post("/v2/pods", json={"name": "b", "image": "i", "gpu": {"id": A4000}})
    assert (refused.status_code, refused.json()["detail"]) == (400, NO_CAPACITY)
    assert refused.headers["content-type"] == "application/problem+json"
    query = {"include": "AVAILABILITY", "product": "POD"}
    assert api.get(f"/v2/catalog/gpus/{A4000}", params=query).json()["availability"] == "NONE"
    api.post(f"/v2/pods/{pod['id']}/action", json={"action": "stop"})
    other = create()
    resumed = api.post(f"/v2/pods/{pod['id']}/action", json={"action": "start"})
    assert (resumed.status_code, "not enough free GPUs" in resumed.json()["detail"]) == (400, True)
    api.delete(f"/v2/pods/{other['id']}")
    api.delete(f"/v2/pods/{pod['id']}")
    assert api.get(f"/v2/catalog/gpus/{A4000}", params=query).json()["availability"] == "LOW"
    create()


def test_less_than_an_hour_s_credit_is_402_and_no_money_ends_everything(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(balance_usd=0.26)
    pod = create()
    cloud.settings(balance_usd=0.24)
    refused = api.post("/v2/pods", json={"name": "b", "image": "i", "gpu": {"id": A4000}})
    assert (refused.status_code, refused.json()["detail"]) == (402, "Your account balance is too low to rent a pod")
    cloud.settings(balance_usd=0.0)
    assert cloud.wait_for_event("pod.ended", pod_id=pod["id"])["reason"] == "balance"


def test_dollars_can_be_recomputed_from_the_events_to_the_last_bit(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    gpus = [A4000, "NVIDIA RTX A5000", "NVIDIA L4"]
    ids = [create(name=f"p{number}", gpu={"id": gpu})["id"] for number, gpu in enumerate(gpus)]
    for pod_id in reversed(ids):
        api.delete(f"/v2/pods/{pod_id}")
    created = {event["pod_id"]: event for event in cloud.events("pod.created")}
    usd = {
        event["pod_id"]: created[event["pod_id"]]["price_usd_per_hr"]
        * (event["ended_at"] - created[event["pod_id"]]["created_at"])
        / 3600
        for event in cloud.events("pod.ended")
    }
    ledger = cloud.ledger()
    assert {row["id"]: row["usd"] for row in ledger["pods"]} == usd
    assert {event["pod_id"]: event["usd"] for event in cloud.events("pod.ended")} == usd
    assert math.isclose(ledger["total_usd"], sum(usd.values()), rel_tol=1e-12)
    assert ledger["total_usd"] > 0
    assert ledger["usd_per_hr"] == 0


def test_a_stopped_pod_is_not_charged(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    pod = create()
    api.post(f"/v2/pods/{pod['id']}/action", json={"action": "stop"})
    first, second = cloud.ledger(), cloud.ledger()
    assert first["total_usd"] == second["total_usd"] > 0
    assert cloud.events("pod.stopped")[0]["ts"] == first["pods"][0]["spans"][0][1]


def read_logs(
    api: httpx.Client, pod_id: str, until: str | None = None, count: int | None = None, **params: Any
) -> list[dict[str, Any]]:
    """Events of the log stream, until a line contains `until`, or so many."""
    last_id = params.pop("last_event_id", None)
    rows: list[dict[str, Any]] = []
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with api.stream("GET", f"/v2/pods/{pod_id}/logs", params=params, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        event_id = ""
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                event_id = value
            elif key == "data":
                rows.append({**json.loads(value), "id": event_id})
                if (until and until in rows[-1]["line"]) or len(rows) == count:
                    break
    return rows


def test_logs_follow_live_with_source_tail_since_and_resume(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(
        cmd=[
            "-c",
            "for n in 1 2 3; do echo line $n; done; echo err >&2; read x < /dev/null; sleep 0.4; echo late; sleep 60",
        ]
    )
    live = read_logs(api, pod["id"], until="late")
    assert {row["source"] for row in live} == {"container", "system"}
    lines = [row["line"] for row in live if row["source"] == "container"]
    assert sorted(lines) == ["err", "late", "line 1", "line 2", "line 3"]
    assert live[0]["id"] == f"{live[0]['ts']}/000000000001"
    assert [row["line"] for row in read_logs(api, pod["id"], count=2, source="container", tail=2)][-1] == "late"
    assert {row["source"] for row in read_logs(api, pod["id"], count=1, source="system")} == {"system"}
    middle = live[3]
    assert read_logs(api, pod["id"], until="late", since=middle["ts"]) == live[3:]
    assert read_logs(api, pod["id"], until="late", last_event_id=middle["id"], tail=0, since=live[0]["ts"]) == live[4:]
    assert api.get(f"/v2/pods/{pod['id']}/logs", params={"tail": 5001}).status_code == 422
    assert api.get(f"/v2/pods/{pod['id']}/logs", params={"source": "kernel"}).status_code == 422
    assert api.get("/v2/pods/none/logs").status_code == 404


def test_tail_0_shows_only_what_comes_and_the_end_of_the_pod_ends_the_stream(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(cmd=["-c", "echo old; sleep 60"])
    read_logs(api, pod["id"], until="old")
    seen: list[dict[str, Any]] = []

    def read() -> None:
        with cloud.client() as own:
            seen.extend(read_logs(own, pod["id"], tail=0))

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: len([e for e in cloud.events("request") if e["op"] == "pods.logs"]) == 2, what="second reader")
    api.delete(f"/v2/pods/{pod['id']}")
    reader.join(5)
    assert not reader.is_alive()
    assert [row["line"] for row in seen] == ["remove container"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic abc", "Bearer"])
def test_without_the_key_everything_is_401(cloud: RunningCloud, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = httpx.get(f"{cloud.runpod_url}/v2/pods", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"title", "status", "detail"}
    if header is None:
        assert answer.json()["detail"] == "missing bearer token"


def test_a_pod_s_own_key_reads_and_ends_that_pod_and_nothing_else(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    mine, other = create(name="mine", cmd=["-c", "echo key $RUNPOD_API_KEY; sleep 60"]), create(name="other")
    key = read_logs(api, mine["id"], until="key")[-1]["line"].split()[1]
    with cloud.client(key) as own:
        assert own.get(f"/v2/pods/{mine['id']}").status_code == 200
        for method, path in [
            ("GET", "/v2/pods"),
            ("GET", f"/v2/pods/{other['id']}"),
            ("DELETE", f"/v2/pods/{other['id']}"),
            ("GET", f"/v2/pods/{mine['id']}/logs"),
            ("GET", "/v2/account/secrets"),
        ]:
            assert own.request(method, path).status_code == 403
        assert own.delete(f"/v2/pods/{mine['id']}").status_code == 204
        assert own.get(f"/v2/pods/{mine['id']}").status_code == 401
    assert [pod["name"] for pod in cloud.live_pods()] == ["other"]


def test_an_unknown_field_is_422_and_named(api: httpx.Client) -> None:
    answer = api.post("/v2/pods", json={"name": "a", "image": "i", "gpu": {"id": A4000}, "interruptible": True})
    assert answer.status_code == 422
    assert answer.json()["errors"] == ["interruptible: additional property is not allowed"]
    missing = api.post("/v2/pods", json={"image": "i"})
    assert missing.json()["errors"] == ["name: Field required"]
    no_json = api.post("/v2/pods", content=b"{", headers={"Content-Type": "application/json"})
    assert (no_json.status_code, no_json.json()["detail"]) == (400, "the request body is not valid JSON")
    assert api.get("/v2/nothing").json() == {"title": "Not Found", "status": 404, "detail": "resource not found"}
    assert api.put("/v2/pods").status_code == 405


def test_too_many_requests_are_429_with_the_seconds_to_wait(cloud: RunningCloud, api: httpx.Client) -> None:
    used = api.get("/v2/pods").headers
    assert used["ratelimit-policy"].startswith('"minute";q=600;w=60')
    left = int(used["ratelimit"].split(";r=")[1].split(";")[0])
    cloud.settings(rate_limit_per_minute=600 - left + 1)
    assert api.get("/v2/pods").status_code == 200
    refused = api.get("/v2/pods")
    assert (refused.status_code, refused.json()["detail"]) == (429, "rate limit exceeded for the minute window")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert '"minute";r=0;' in refused.headers["ratelimit"]


def test_the_catalogue_shows_prices_and_only_on_request_stock(api: httpx.Client) -> None:
    rows = {row["id"]: row for row in api.get("/v2/catalog/gpus").json()["gpus"]}
    assert rows[A4000]["price"] == {"secure": 0.25, "community": 0.17}
    assert (rows["NVIDIA L4"]["price"], rows["NVIDIA L4"]["community"]) == ({"secure": 0.49, "community": 0.0}, False)
    assert "availability" not in rows[A4000]
    params = {"include": "AVAILABILITY", "product": "POD", "cloud": "COMMUNITY"}
    rows = {row["id"]: row for row in api.get("/v2/catalog/gpus", params=params).json()["gpus"]}
    assert (rows[A4000]["availability"], rows["NVIDIA L4"]["availability"]) == ("HIGH", "NONE")
    assert api.get("/v2/catalog/gpus", params={"include": "AVAILABILITY"}).status_code == 400
    assert api.get("/v2/catalog/gpus/NVIDIA L5").status_code == 404


def test_secrets_are_named_once_rotated_and_never_shown(cloud: RunningCloud, api: httpx.Client) -> None:
    made = api.post("/v2/account/secrets", json={"name": "a/b-1", "value": "v1", "description": "d"})
    assert made.status_code == 201
    secret = made.json()
    assert set(secret) == {"id", "name", "description", "createdAt", "valueLastUpdatedAt"}
    assert api.post("/v2/account/secrets", json={"name": "a/b-1", "value": "x"}).status_code == 409
    for name in ("1a", "RUNPOD_x", "runpod_x", "a b", "", "a" * 192):
        assert api.post("/v2/account/secrets", json={"name": name, "value": "x"}).status_code == 422
    rotated = api.patch(f"/v2/account/secrets/{secret['id']}", json={"value": "v2"}).json()
    assert rotated["createdAt"] == secret["createdAt"]
    assert rotated["valueLastUpdatedAt"] > secret["valueLastUpdatedAt"]
    assert [row["id"] for row in api.get("/v2/account/secrets", params={"name": "a/b-1"}).json()["secrets"]] == [
        secret["id"]
    ]
    assert api.get("/v2/account/secrets", params={"name": "other"}).json()["secrets"] == []
    assert api.delete(f"/v2/account/secrets/{secret['id']}").status_code == 204
    assert api.delete(f"/v2/account/secrets/{secret['id']}").status_code == 404
    kinds = [event["kind"] for event in cloud.events() if event["kind"].startswith("secret.")]
    assert kinds == ["secret.created", "secret.updated", "secret.deleted"]


def test_reset_leaves_nothing(cloud: RunningCloud, api: httpx.Client, create: Create) -> None:
    pod = create()
    until_running(api, pod["id"])
    pid = host(cloud, pod["id"])["pid"]
    api.post("/v2/account/secrets", json={"name": "a", "value": "x"})
    cloud.settings(page_size=1)
    cloud.fault("pods.list", "status")
    cloud.reset()
    assert not alive(pid)
    assert api.get("/v2/pods").json()["pods"] == []
    assert api.get("/v2/account/secrets").json()["secrets"] == []
    assert cloud.ledger()["pods"] == cloud.faults() == cloud.pods() == []
    assert list((cloud.folder / "pods").iterdir()) == []


def test_a_reset_begins_the_rate_limit_s_windows_anew(cloud: RunningCloud, api: httpx.Client) -> None:
    for _ in range(3):
        api.get("/v2/pods")
    cloud.reset()
    assert api.get("/v2/pods").headers["ratelimit"].startswith('"minute";r=599;')
