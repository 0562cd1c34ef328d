"""What an account holds besides pods: logins, network volumes, templates, SSH keys; pods that refer to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, running, wait_until

A4000 = "NVIDIA RTX A4000"
SLEEPER = ["/bin/sh", "-c", "exec sleep 600"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@example.com"
Create = Callable[..., dict[str, Any]]


def status(api: httpx.Client, pod_id: str) -> str:
    return str(api.get(f"/v2/pods/{pod_id}").json()["status"])


def log_text(cloud: RunningCloud, pod_id: str) -> str:
    return (cloud.folder / "logs" / f"{pod_id}.log").read_text("utf-8")


def volume(api: httpx.Client, **more: Any) -> dict[str, Any]:
    body = {"name": "models", "size": 10, "dataCenter": "EU-SE-1", **more}
    made: dict[str, Any] = api.post("/v2/network-volumes", json=body).raise_for_status().json()
    return made


def registry(api: httpx.Client) -> dict[str, Any]:
    body = {"name": "ghcr", "username": "me", "password": "s3cret"}
    made: dict[str, Any] = api.post("/v2/registries", json=body).raise_for_status().json()
    return made


# -- registries -------------------------------------------------------------------------------------------------------
def test_a_registry_s_login_is_kept_and_never_shown(cloud: RunningCloud, api: httpx.Client) -> None:
    made = registry(api)
    assert set(made) == {"id", "name"}
    assert api.get("/v2/registries").json() == {"registries": [made]}
    assert api.get(f"/v2/registries/{made['id']}").json() == made
    assert "s3cret" not in json.dumps(cloud.events())
    assert api.patch(f"/v2/registries/{made['id']}", json={"password": "p"}).status_code == 405
    assert api.delete(f"/v2/registries/{made['id']}").status_code == 204
    assert api.get(f"/v2/registries/{made['id']}").status_code == 404
    assert api.delete(f"/v2/registries/{made['id']}").status_code == 404


def test_a_registry_in_use_by_a_pod_is_not_deleted(api: httpx.Client, create: Create) -> None:
    login = registry(api)
    pod = create(registry=login["id"])
    assert pod["registry"] == login["id"]
    refused = api.delete(f"/v2/registries/{login['id']}")
    assert (refused.status_code, pod["id"] in refused.json()["detail"]) == (400, True)
    api.delete(f"/v2/pods/{pod['id']}")
    assert api.delete(f"/v2/registries/{login['id']}").status_code == 204


def test_a_private_image_is_pulled_with_a_registry_or_not_at_all(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    cloud.settings(private_images=["ghcr.io/me/*"])
    without = create(name="without", image="ghcr.io/me/node:1")
    with_login = create(name="with", image="ghcr.io/me/node:1", registry=registry(api)["id"])
    public = create(name="public", image="ghcr.io/you/node:1")
    wait_until(lambda: status(api, without["id"]) == "ERROR", what="ERROR")
    assert "error pulling image: pull access denied for ghcr.io/me/node:1" in log_text(cloud, without["id"])
    for pod in (with_login, public):
        wait_until(lambda pod_id=pod["id"]: status(api, pod_id) == "RUNNING", what="RUNNING")


@pytest.mark.parametrize(
    "more",
    [
        {"registry": "nobody"},
        {"templateId": "nobody"},
        {"mounts": {"network": [{"volumeId": "nobody", "path": "/v"}]}},
    ],
)
def test_a_pod_refers_only_to_what_there_is(api: httpx.Client, more: dict[str, Any]) -> None:
    answer = api.post("/v2/pods", json={"name": "a", "image": "i", "gpu": {"id": A4000}, **more})
    assert (answer.status_code, answer.json()["detail"]) == (404, "resource not found")
    pod = api.post("/v2/pods", json={"name": "a", "image": "i", "gpu": {"id": A4000}}).json()
    if "mounts" not in more:
        assert api.patch(f"/v2/pods/{pod['id']}", json=more).status_code == 404


# -- network volumes --------------------------------------------------------------------------------------------------
def test_a_volume_is_renamed_and_grows_but_never_shrinks_or_moves(api: httpx.Client) -> None:
    made = volume(api, size=20, dataCenter="EU-RO-1", type="HIGH_PERFORMANCE")
    where = f"/v2/network-volumes/{made['id']}"
    assert made == {
        "id": made["id"],
        "name": "models",
        "size": 20,
        "dataCenter": "EU-RO-1",
        "type": "HIGH_PERFORMANCE",
    }
    assert api.patch(where, json={"name": "bigger", "size": 30}).json() == {**made, "name": "bigger", "size": 30}
    assert api.patch(where, json={"size": 29}).status_code == 400
    for wrong in ({}, {"dataCenter": "EU-SE-1"}, {"size": 4097}, {"size": "40"}, {"name": None}):
        assert api.patch(where, json=wrong).status_code == 422, wrong
    assert api.get(where).json()["size"] == 30
    assert api.delete(where).status_code == 204
    assert api.get(where).status_code == 404


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"dataCenter": "MARS-1"}, 400),
        ({"dataCenter": "CA-MTL-3"}, 400),  # has no volumes
        ({"type": "HIGH_PERFORMANCE"}, 400),  # EU-SE-1 has the other kind only
        ({"size": 9}, 422),
        ({"dataCenterId": "EU-RO-1"}, 422),
    ],
)
def test_a_volume_that_cannot_be_is_refused(api: httpx.Client, more: dict[str, Any], code: int) -> None:
    body = {"name": "models", "size": 10, "dataCenter": "EU-SE-1", **more}
    assert api.post("/v2/network-volumes", json=body).status_code == code
    assert api.get("/v2/network-volumes").json()["networkVolumes"] == []


def test_volumes_are_listed_in_pages_whose_cursor_survives_a_delete(cloud: RunningCloud, api: httpx.Client) -> None:
    cloud.settings(page_size=2)
    made = [volume(api, name=f"v{n}")["id"] for n in range(5)]
    first = api.get("/v2/network-volumes").json()
    assert [row["id"] for row in first["networkVolumes"]] == made[:2]
    assert first["pagination"]["hasNextPage"] is True
    api.delete(f"/v2/network-volumes/{made[1]}")
    second = api.get("/v2/network-volumes", params={"cursor": first["pagination"]["nextCursor"]}).json()
    assert [row["id"] for row in second["networkVolumes"]] == made[2:4]
    last = api.get("/v2/network-volumes", params={"cursor": second["pagination"]["nextCursor"]}).json()
    assert ([row["id"] for row in last["networkVolumes"]], last["pagination"]) == (
        made[4:],
        {"hasNextPage": False, "nextCursor": ""},
    )
    assert api.get("/v2/network-volumes", params={"cursor": "!"}).status_code == 422


def test_a_volume_binds_its_pod_to_its_data_centre_and_is_bound_by_it(api: httpx.Client, create: Create) -> None:
    made = volume(api)
    mounts = {"network": [{"volumeId": made["id"], "path": "/models"}]}
    pod = create(mounts=mounts)
    assert (pod["dataCenterId"], pod["mounts"]) == ("EU-SE-1", mounts)
    elsewhere = {"name": "a", "image": "i", "gpu": {"id": A4000}, "mounts": mounts, "dataCenterIds": ["EU-RO-1"]}
    refused = api.post("/v2/pods", json=elsewhere)
    assert (refused.status_code, "EU-SE-1" in refused.json()["detail"]) == (400, True)
    assert api.delete(f"/v2/network-volumes/{made['id']}").status_code == 409
    assert api.post(f"/v2/pods/{pod['id']}/action", json={"action": "stop"}).status_code == 200
    assert api.delete(f"/v2/network-volumes/{made['id']}").status_code == 409
    api.delete(f"/v2/pods/{pod['id']}")
    assert api.delete(f"/v2/network-volumes/{made['id']}").status_code == 204


def test_volumes_cost_money_as_long_as_they_are_there(cloud: RunningCloud, api: httpx.Client) -> None:
    before = cloud.ledger()["balance_usd"]
    made = volume(api, size=4000)
    spent = wait_until(lambda: before - cloud.ledger()["balance_usd"], what="a charge")
    api.delete(f"/v2/network-volumes/{made['id']}")
    after = cloud.ledger()["balance_usd"]
    assert before - after >= spent > 0
    assert cloud.ledger()["balance_usd"] == after


# -- templates --------------------------------------------------------------------------------------------------------
def test_a_template_is_taken_once_and_the_body_wins(api: httpx.Client, create: Create) -> None:
    settings = {"image": "i:1", "disk": 30, "env": {"A": "t", "B": "t"}, "ports": ["22/tcp"], "args": "serve"}
    made = api.post("/v2/templates", json={"name": "t", **settings}).json()
    assert (made["startSsh"], made["startJupyter"], made["category"]) == (True, True, "NVIDIA")
    body = {"name": "p", "gpu": {"id": A4000}, "templateId": made["id"], "disk": 40, "env": {"B": "body"}}
    pod = api.post("/v2/pods", json=body).raise_for_status().json()
    assert {key: pod[key] for key in ("image", "disk", "env", "ports", "args", "template")} == {
        "image": "i:1",
        "disk": 40,
        "env": {"A": "t", "B": "body"},
        "ports": ["22/tcp"],
        "args": "serve",
        "template": None,
    }
    assert api.patch(f"/v2/templates/{made['id']}", json={"image": "i:2"}).json()["image"] == "i:2"
    assert api.get(f"/v2/pods/{pod['id']}").json()["image"] == "i:1"
    assert [row["id"] for row in api.get("/v2/templates").json()["templates"]] == [made["id"]]
    assert api.delete(f"/v2/templates/{made['id']}").status_code == 204
    assert api.get(f"/v2/templates/{made['id']}").status_code == 404


def test_a_template_s_cuda_versions_hold_unless_the_body_says_something_of_cuda(api: httpx.Client) -> None:
    made = api.post("/v2/templates", json={"name": "t", "image": "i", "allowedCudaVersions": ["13.0"]}).json()

    def where(**gpu: Any) -> str:
        body = {"name": "p", "templateId": made["id"], "gpu": {"id": A4000, **gpu}}
        return str(api.post("/v2/pods", json=body).raise_for_status().json()["cudaVersion"])

    assert where() == "13.0"
    assert where(allowedCudaVersions=["12.4"]) == "12.4"


def test_a_serverless_template_is_not_for_pods_and_a_lost_registry_is_forgotten(api: httpx.Client) -> None:
    login = registry(api)
    made = api.post("/v2/templates", json={"name": "t", "image": "i", "serverless": True, "registry": login["id"]})
    where = f"/v2/templates/{made.json()['id']}"
    body = {"name": "p", "gpu": {"id": A4000}, "templateId": made.json()["id"]}
    assert api.post("/v2/pods", json=body).status_code == 422
    assert api.delete(f"/v2/registries/{login['id']}").status_code == 204
    assert api.get(where).json()["registry"] is None


# -- SSH keys ---------------------------------------------------------------------------------------------------------
def test_ssh_keys_are_replaced_as_a_set_and_reach_pods_that_ask(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    keys = [KEY, "sk-ssh-ed25519@openssh.com AAAA"]
    assert api.get("/v2/account/ssh-keys").json() == {"keys": []}
    assert api.put("/v2/account/ssh-keys", json={"keys": keys}).json() == {"keys": keys}
    for wrong in ({"keys": ["no key"]}, {"keys": [f"{KEY}\n{KEY}"]}, {}, {"keys": KEY}):
        assert api.put("/v2/account/ssh-keys", json=wrong).status_code == 422, wrong
    say = ["-c", 'echo "$PUBLIC_KEY"; echo jupyter $JUPYTER_PASSWORD end; sleep 60']
    asks = create(startSsh=True, startJupyter=True, cmd=say)
    own = create(startSsh=True, cmd=say, env={"PUBLIC_KEY": "mine"})
    silent = create(cmd=say)
    assert "PUBLIC_KEY" not in asks["env"]
    for pod in (asks, own, silent):
        wait_until(lambda pod_id=pod["id"]: " end" in log_text(cloud, pod_id), what="the pod's words")
    assert all(key in log_text(cloud, asks["id"]) for key in keys)
    assert "jupyter  end" not in log_text(cloud, asks["id"])
    assert (KEY in log_text(cloud, own["id"]), "mine" in log_text(cloud, own["id"])) == (False, True)
    assert KEY not in log_text(cloud, silent["id"])
    assert api.put("/v2/account/ssh-keys", json={"keys": []}).json() == {"keys": []}


# -- PATCH of a pod ---------------------------------------------------------------------------------------------------
def test_a_patch_changes_what_is_given_and_env_as_a_whole(
    cloud: RunningCloud, api: httpx.Client, create: Create
) -> None:
    pod = create(env={"A": "1", "B": "2"}, cmd=["-c", "echo A=$A B=$B; sleep 60"], registry=registry(api)["id"])
    where = f"/v2/pods/{pod['id']}"
    wait_until(lambda: "A=1 B=2" in log_text(cloud, pod["id"]), what="the first words")
    changed = api.patch(where, json={"name": "other", "env": {"A": "3"}, "image": "i:2", "registry": None}).json()
    assert {key: changed[key] for key in ("name", "env", "image", "registry", "cmd", "disk")} == {
        "name": "other",
        "env": {"A": "3"},
        "image": "i:2",
        "registry": None,
        "cmd": pod["cmd"],
        "disk": pod["disk"],
    }
    assert api.patch(where, json={}).json()["name"] == "other"
    api.post(f"{where}/action", json={"action": "restart"}).raise_for_status()
    wait_until(lambda: "A=3 B=\n" in log_text(cloud, pod["id"]), what="the words after the restart")
    for wrong in ({"gpu": {"id": A4000}}, {"name": ""}, {"env": None}, {"disk": 0}):
        assert api.patch(where, json=wrong).status_code == 422, wrong
    assert api.patch("/v2/pods/nobody", json={}).status_code == 404
    assert cloud.wait_for_event("pod.updated", pod_id=pod["id"])["changed"] == ["env", "image", "name", "registry"]


def test_the_kind_of_a_mount_and_its_volume_are_fixed(api: httpx.Client, create: Create) -> None:
    first, second = volume(api), volume(api)
    with_disk = create(mounts={"persistent": {"size": 10, "path": "/w"}})
    with_volume = create(mounts={"network": [{"volumeId": first["id"], "path": "/v"}]})
    bare = create()

    def patch(pod: dict[str, Any], mounts: dict[str, Any]) -> httpx.Response:
        return api.patch(f"/v2/pods/{pod['id']}", json={"mounts": mounts})

    disk, net = {"persistent": {"size": 20, "path": "/x"}}, [{"volumeId": first["id"], "path": "/y"}]
    assert patch(with_disk, disk).json()["mounts"] == disk
    assert patch(with_volume, {"network": net}).json()["mounts"] == {"network": net}
    assert patch(with_volume, {}).json()["mounts"] == {"network": net}
    assert patch(with_volume, {"network": []}).status_code == 400
    assert patch(with_volume, {"network": [{"volumeId": second["id"], "path": "/y"}]}).status_code == 400
    assert patch(with_volume, disk).status_code == 400
    assert patch(bare, disk).status_code == 400
    assert patch(bare, {"network": [{"volumeId": first["id"]}]}).status_code == 422


def test_a_locked_pod_is_not_stopped_or_restarted_but_ends(api: httpx.Client, create: Create) -> None:
    pod = create()
    where = f"/v2/pods/{pod['id']}"
    wait_until(lambda: status(api, pod["id"]) == "RUNNING", what="RUNNING")
    assert api.patch(where, json={"locked": True}).json()["actions"] == ["terminate"]
    for action in ("stop", "restart", "start"):
        assert api.post(f"{where}/action", json={"action": action}).status_code == 409
    assert api.patch(where, json={"locked": False}).json()["actions"] == ["stop", "restart", "terminate"]
    api.patch(where, json={"locked": True})
    assert api.post(f"{where}/action", json={"action": "terminate"}).status_code == 204


# -- faults, persistence ----------------------------------------------------------------------------------------------
def test_faults_speak_about_these_records_by_name_too(cloud: RunningCloud, api: httpx.Client) -> None:
    kept = registry(api)
    cloud.fault("registries.delete", "status", status=500, name_contains="ghcr")
    assert api.delete(f"/v2/registries/{kept['id']}").status_code == 500
    assert api.delete(f"/v2/registries/{kept['id']}").status_code == 204
    cloud.fault("volumes.create", "status", "after", status=502, name_contains="mod")
    body = {"name": "models", "size": 10, "dataCenter": "EU-SE-1"}
    assert api.post("/v2/network-volumes", json=body).status_code == 502
    assert [row["name"] for row in api.get("/v2/network-volumes").json()["networkVolumes"]] == ["models"]


def test_a_reset_forgets_the_account_and_a_kept_cloud_keeps_it(tmp_path: Path) -> None:
    def everything(api: httpx.Client) -> list[Any]:
        paths = ("/v2/registries", "/v2/network-volumes", "/v2/templates", "/v2/account/ssh-keys")
        return [api.get(path).json() for path in paths]

    with running(tmp_path, state="kept", pod_command=SLEEPER) as cloud, cloud.client() as api:
        nothing = everything(api)
        registry(api)
        made = volume(api)
        api.delete(f"/v2/network-volumes/{volume(api)['id']}")
        api.patch(f"/v2/network-volumes/{made['id']}", json={"size": 11})
        api.post("/v2/templates", json={"name": "t", "image": "i", "env": {"A": "1"}, "ports": ["22/tcp"]})
        api.put("/v2/account/ssh-keys", json={"keys": [KEY]})
        kept = everything(api)
    with running(tmp_path, state="kept", pod_command=SLEEPER) as cloud, cloud.client() as api:
        assert everything(api) == kept
        history = api.get("/v2/billing/network-volumes").json()
        assert history["metadata"]["uniqueNetworkVolumeCount"] == 2
        cloud.settings(page_size=1)
        later = volume(api, name="later")
        first = api.get("/v2/network-volumes").json()
        second = api.get("/v2/network-volumes", params={"cursor": first["pagination"]["nextCursor"]}).json()
        assert [row["id"] for row in first["networkVolumes"] + second["networkVolumes"]] == [made["id"], later["id"]]
        cloud.reset()
        assert everything(api) == nothing
