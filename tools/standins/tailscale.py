"""Stand-in for the `tailscale` plugin: TailnetKey and Acl over the Tailscale API v2. A test double.

Sends the requests that the real plugin was seen to send, in the same order and with the same headers.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from google.protobuf.struct_pb2 import Struct
from standin import PluginError, StandIn, plains, with_values

KEY, ACL = "tailscale:index/tailnetKey:TailnetKey", "tailscale:index/acl:Acl"
DEFAULTS = {"reusable": False, "ephemeral": False, "preauthorized": False, "expiry": 7776000, "description": ""}
KEY_INPUTS = {*DEFAULTS, "tags", "recreateIfInvalid"}
VARIABLES = {
    "baseUrl": "TAILSCALE_BASE_URL",
    "tailnet": "TAILSCALE_TAILNET",
    "apiKey": "TAILSCALE_API_KEY",
    "oauthClientId": "TAILSCALE_OAUTH_CLIENT_ID",
    "oauthClientSecret": "TAILSCALE_OAUTH_CLIENT_SECRET",
    "identityToken": "TAILSCALE_IDENTITY_TOKEN",
}
HUJSON, JSON = "application/hujson", "application/json"
TIMEOUT_S = 30
NOT_FOUND = 404


class Tailscale(StandIn):
    package, version = "tailscale", "0.29.2"
    inputs = {  # noqa: RUF012 - typed in the base class
        KEY: KEY_INPUTS | {"userId"},
        ACL: {"acl", "overwriteExistingContent", "resetAclOnDestroy"},
    }
    replace_on = {KEY: {*DEFAULTS, "tags"}, ACL: set()}  # noqa: RUF012

    def configure(self, config: dict[str, Any]) -> None:
        self._config = {**{key: os.environ.get(name) for key, name in VARIABLES.items()}, **config}
        base = (self._config.get("baseUrl") or "https://api.tailscale.com").rstrip("/")
        self._base = f"{base}/api/v2"
        self._tailnet = f"/tailnet/{urllib.parse.quote(self._config.get('tailnet') or '-')}"
        self._token: str | None = None
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_loopback(base) else []))

    def differences(self, kind: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
        if kind == ACL:
            return super().differences(kind, old, new)
        new = DEFAULTS | new
        changed = sorted(key for key in KEY_INPUTS if old.get(key) != new.get(key))
        replaces = [key for key in changed if key in self.replace_on[KEY]]
        again = new.get("recreateIfInvalid") or ("always" if new["reusable"] else "never")
        if old.get("invalid") and again == "always":
            return [*changed, "invalid"], [*replaces, "invalid"]
        return changed, replaces

    def create(self, request: Any) -> tuple[str, Struct]:
        wanted = plains(request.properties)
        if request.type == ACL:
            match = "" if wanted.get("overwriteExistingContent") else '"ts-default"'
            self._api("POST", f"{self._tailnet}/acl", HUJSON, wanted["acl"], match=match)
            return "acl", request.properties
        wanted = DEFAULTS | wanted
        rights = {name: wanted[name] for name in ("reusable", "ephemeral")}
        rights |= {"tags": wanted.get("tags") or [], "preauthorized": wanted["preauthorized"]}
        body = {
            "capabilities": {"devices": {"create": rights}},
            "expirySeconds": wanted["expiry"],
            "description": wanted["description"],
        }
        key = json.loads(self._api("POST", f"{self._tailnet}/keys", JSON, json.dumps(body)))
        outputs = {**key_state(key), "key": key["key"]}
        return key["id"], with_values(request.properties, outputs, secret=["key"])

    def update(self, request: Any) -> Struct:
        if request.type == KEY:
            return with_values(request.olds, plains(request.news))
        if plains(request.olds).get("acl") != (policy := plains(request.news)["acl"]):
            self._api("POST", f"{self._tailnet}/acl", HUJSON, policy)
        return request.news

    def read(self, request: Any) -> tuple[str, Struct, Struct]:
        """A vanished key is not dropped: it becomes invalid in the state, as with the real plugin."""
        if request.type == ACL:
            found: dict[str, Any] = {"acl": self._api("GET", f"{self._tailnet}/acl", HUJSON)}
        else:
            body = self._api("GET", f"{self._tailnet}/keys/{request.id}", JSON, missing_ok=True)
            found = key_state(json.loads(body)) if body else {"invalid": True}
        return request.id, with_values(request.properties, found), request.inputs

    def delete(self, request: Any) -> None:
        if request.type == KEY:
            self._api("DELETE", f"{self._tailnet}/keys/{request.id}", JSON, missing_ok=True)
        elif plains(request.properties).get("resetAclOnDestroy"):
            self._api("POST", f"{self._tailnet}/acl", HUJSON, "")

    def _api(
        self, method: str, path: str, kind: str, body: str | None = None, missing_ok: bool = False, match: str = ""
    ) -> str:
        """The answer's text; empty for a 404 where that is accepted."""
        headers = {"Authorization": self._authorization(), "Accept" if body is None else "Content-Type": kind}
        if match:
            headers["If-Match"] = match
        return self._send(method, path, headers, body, missing_ok)

    def _authorization(self) -> str:
        """An API key is sent as it is; for OAuth and identity tokens a token is fetched on first use."""
        config = self._config
        if config.get("apiKey"):
            return basic(config["apiKey"])
        if not self._token:
            client, secret = config.get("oauthClientId"), config.get("oauthClientSecret")
            head = {"Content-Type": "application/x-www-form-urlencoded"}
            if client and config.get("identityToken"):
                path, form = "token-exchange", {"client_id": client, "jwt": config["identityToken"]}
            elif client and secret:
                scopes = config.get("scopes") or []
                scopes = json.loads(scopes) if isinstance(scopes, str) else scopes  # the SDK sends a JSON string
                path, form = "token", {"grant_type": "client_credentials", "scope": " ".join(scopes)}
                head["Authorization"] = basic(client, secret)
            else:
                raise PluginError("tailscale: no credentials: api_key, or oauth_client_id with a secret or a token")
            answer = self._send("POST", f"/oauth/{path}", head, urllib.parse.urlencode(form))
            self._token = "Bearer " + json.loads(answer)["access_token"]
        return self._token

    def _send(self, method: str, path: str, headers: dict[str, str], body: str | None, missing_ok: bool = False) -> str:
        headers = {"User-Agent": self._config.get("userAgent") or "pulumi-tailscale-standin", **headers}
        data = None if body is None else body.encode()
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code == NOT_FOUND and missing_ok:
                return ""
            raise PluginError(f"{method} {path}: {error.code}: {error.read().decode()}") from None
        except urllib.error.URLError as error:
            raise PluginError(f"{method} {self._base}{path}: {error.reason}") from None


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def is_loopback(url: str) -> bool:
    """Such an address is never asked through a proxy (Go's client does the same)."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_state(key: dict[str, Any]) -> dict[str, Any]:
    rights = key["capabilities"]["devices"]["create"]
    return {
        **{name: bool(rights.get(name)) for name in ("reusable", "ephemeral", "preauthorized")},
        "expiry": key.get("expirySeconds") or DEFAULTS["expiry"],
        "description": key.get("description") or "",
        "createdAt": key["created"],
        "expiresAt": key["expires"],
        "invalid": bool(key.get("invalid")),
        "userId": key.get("userId") or "",
    }


if __name__ == "__main__":
    Tailscale.main()
