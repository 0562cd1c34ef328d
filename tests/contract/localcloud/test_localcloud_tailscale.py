"""Tailscale's API: the requests that the Pulumi provider was seen to send, and the answers that it needs."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, running

POLICY = '// mine\n{"tagOwners": {"tag:runpod": ["autogroup:admin"],},}\n'
KEY = {
    "capabilities": {
        "devices": {"create": {"reusable": True, "ephemeral": True, "tags": ["tag:gpu"], "preauthorized": True}}
    },
    "expirySeconds": 3600,
    "description": "fleet one",
}
T = "/api/v2/tailnet/example.com"


@pytest.fixture
def ts(cloud: RunningCloud) -> Iterator[httpx.Client]:
    with client(cloud) as one:
        yield one


def client(cloud: RunningCloud) -> httpx.Client:
    auth = (cloud.tailscale_api_key, "")
    return httpx.Client(base_url=cloud.tailscale_url, auth=auth, trust_env=False)


def test_a_key_is_shown_whole_once_listed_without_its_secret_and_deleted(ts: httpx.Client) -> None:
    made = ts.post(f"{T}/keys", json=KEY)
    assert made.status_code == 200
    key: dict[str, Any] = made.json()
    assert key["key"].startswith("tskey-auth-")
    expected = {"keyType": "auth", "description": "fleet one", "expirySeconds": 3600, "invalid": False}
    assert expected.items() <= key.items()
    assert key["capabilities"] == KEY["capabilities"]
    assert {"id", "created", "updated", "expires", "userId"} <= set(key)
    shown = ts.get(f"{T}/keys/{key['id']}", headers={"Accept": "application/json"})
    assert shown.json() == {name: value for name, value in key.items() if name != "key"}
    assert [row["id"] for row in ts.get(f"{T}/keys").json()["keys"]] == [key["id"]]
    deleted = ts.delete(f"{T}/keys/{key['id']}")
    assert (deleted.status_code, deleted.json()) == (200, {})
    assert ts.get(f"{T}/keys/{key['id']}").status_code == 404
    again = ts.delete(f"{T}/keys/{key['id']}")
    assert (again.status_code, again.json()["message"]) == (404, "no such key")
    assert ts.get(f"{T}/keys").json() == {"keys": []}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([], "tailnet-owned auth key must have tags set"),
        (["gpu"], "requested tags [gpu] are invalid or not permitted"),
    ],
)
def test_a_key_needs_tags(ts: httpx.Client, tags: list[str], message: str) -> None:
    body = {"capabilities": {"devices": {"create": {"reusable": True, "tags": tags}}}}
    answer = ts.post(f"{T}/keys", json=body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_a_key_lives_ninety_days_unless_told(ts: httpx.Client) -> None:
    body = {"capabilities": KEY["capabilities"]}
    assert ts.post(f"{T}/keys", json=body).json()["expirySeconds"] == 7776000


def post_policy(ts: httpx.Client, text: str, if_match: str | None = None) -> httpx.Response:
    headers = {"Content-Type": "application/hujson"} | ({"If-Match": if_match} if if_match else {})
    return ts.post(f"{T}/acl", content=text.encode(), headers=headers)


def test_a_policy_is_kept_byte_for_byte_and_reset_by_an_empty_one(ts: httpx.Client) -> None:
    hujson = {"Accept": "application/hujson"}
    default = ts.get(f"{T}/acl", headers=hujson)
    assert post_policy(ts, POLICY).status_code == 200
    stored = ts.get(f"{T}/acl", headers=hujson)
    assert stored.text == POLICY
    assert stored.headers["content-type"].startswith("application/hujson")
    assert stored.headers["etag"] not in ("", default.headers["etag"])
    assert ts.get(f"{T}/acl", headers={"Accept": "application/json"}).json() == {
        "tagOwners": {"tag:runpod": ["autogroup:admin"]}
    }
    assert post_policy(ts, "").status_code == 200
    assert ts.get(f"{T}/acl", headers=hujson).text == default.text


def test_if_match_guards_the_policy(ts: httpx.Client) -> None:
    assert post_policy(ts, POLICY, '"ts-default"').status_code == 200
    refused = post_policy(ts, POLICY, '"ts-default"')
    assert (refused.status_code, refused.json()["message"]) == (412, "precondition failed, invalid old hash")
    etag = ts.get(f"{T}/acl").headers["etag"]
    assert post_policy(ts, "{}", etag).status_code == 200
    assert post_policy(ts, "{}", etag).status_code == 412


def test_a_text_that_is_no_policy_is_refused(ts: httpx.Client) -> None:
    refused = post_policy(ts, "{tagOwners}")
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("invalid policy: ")
    assert ts.post(f"{T}/acl/validate", content=b"[1]").json()["message"].startswith("invalid policy: ")
    assert ts.post(f"{T}/acl/validate", content=POLICY.encode()).json() == {}


def test_devices_are_listed_shown_and_deleted(cloud: RunningCloud, ts: httpx.Client) -> None:
    planted = httpx.post(
        f"{cloud.tailscale_url}/_emu/devices", json={"hostname": "slot-01", "tags": ["tag:gpu"]}, trust_env=False
    ).json()
    listed = ts.get(f"{T}/devices").json()["devices"]
    assert listed == [planted]
    assert (planted["hostname"], planted["tags"], planted["isEphemeral"]) == ("slot-01", ["tag:gpu"], True)
    assert ts.get(f"/api/v2/device/{planted['nodeId']}").json() == planted
    assert ts.delete(f"/api/v2/device/{planted['id']}").status_code == 200
    assert ts.delete(f"/api/v2/device/{planted['id']}").status_code == 404
    assert ts.get(f"{T}/devices").json() == {"devices": []}


def test_who_has_no_key_is_told_so_in_json(cloud: RunningCloud) -> None:
    for headers in ({}, {"Authorization": "Basic !"}, {"Authorization": "Bearer x"}):
        answer = httpx.get(f"{cloud.tailscale_url}{T}/keys", headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["message"]) == (401, "API token invalid")
    bearer = {"Authorization": f"Bearer {cloud.tailscale_api_key}"}
    assert httpx.get(f"{cloud.tailscale_url}{T}/keys", headers=bearer, trust_env=False).status_code == 200


def test_an_oauth_client_gets_a_token_that_lets_it_in(cloud: RunningCloud) -> None:
    lines = (cloud.folder / "oauth.env").read_text("utf-8").splitlines()
    oauth = dict(line.split("=", 1) for line in lines)
    pair = f"{oauth['TAILSCALE_OAUTH_CLIENT_ID']}:{oauth['TAILSCALE_OAUTH_CLIENT_SECRET']}"
    with httpx.Client(base_url=cloud.tailscale_url, trust_env=False) as plain:
        form = {"grant_type": "client_credentials", "scope": "auth_keys policy_file"}
        basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        token = plain.post("/api/v2/oauth/token", data=form, headers=basic).json()
        assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        assert plain.get(f"{T}/keys", headers=bearer).status_code == 200
        assert plain.post("/api/v2/oauth/token", data=form).status_code == 401


def test_unknown_paths_answer_in_json(ts: httpx.Client) -> None:
    answer = ts.get("/api/v2/nothing")
    assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")
    assert ts.post(f"{T}/keys", json={"capabilities": 1}).json()["message"].startswith("body.capabilities")


def test_tag_owners_are_checked_when_the_facts_say_so(tmp_path: Path) -> None:
    with running(tmp_path / "cloud", check_tag_owners=True) as cloud, client(cloud) as ts:
        assert ts.post(f"{T}/keys", json=KEY).status_code == 400
        post_policy(ts, '{"tagOwners": {"tag:gpu": []}}')
        assert ts.post(f"{T}/keys", json=KEY).status_code == 200
