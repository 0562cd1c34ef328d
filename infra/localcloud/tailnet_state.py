"""One tailnet as the Tailscale API shows it: auth keys, the policy text, devices. Called by `tailscale_api`.

The policy is kept as it was written, byte for byte; only its tag owners are looked at.
"""

import hashlib
import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from localcloud.errors import Refusal
from localcloud.events import EventLog
from localcloud.podlog import rfc3339

NINETY_DAYS_S = 7_776_000
TOKEN_S = 3600
DEFAULT_POLICY = """// The policy of a new tailnet: everything may reach everything.
{
\t"grants": [
\t\t{"src": ["*"], "dst": ["*"], "ip": ["*"]},
\t],
}
"""
_TAG = re.compile(r"^tag:[A-Za-z][A-Za-z0-9-]*$")


@dataclass(slots=True)
class AuthKey:
    """One auth key; the secret is shown by its creation alone."""

    id: str
    capabilities: dict[str, Any]
    tags: list[str]
    description: str
    created_at_s: float
    expiry_s: int
    secret: str = field(repr=False)

    def invalid(self, now_s: float) -> bool:
        """Expired keys stay listed."""
        return now_s >= self.created_at_s + self.expiry_s

    def json(self, now_s: float) -> dict[str, Any]:
        """Without the secret."""
        return {
            "id": self.id,
            "keyType": "auth",
            "description": self.description,
            "created": rfc3339(self.created_at_s),
            "updated": rfc3339(self.created_at_s),
            "expires": rfc3339(self.created_at_s + self.expiry_s),
            "expirySeconds": self.expiry_s,
            "capabilities": self.capabilities,
            "tags": self.tags,
            "invalid": self.invalid(now_s),
            "userId": "u1CNTRL",
        }


class Tailnet:
    """Keys, policy, devices, OAuth tokens."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self.reset()

    def reset(self) -> None:
        """A new tailnet."""
        self.keys: dict[str, AuthKey] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.policy: str | None = None
        self._tokens: dict[str, float] = {}

    # -- over a restart -------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """Everything, keys included: for a file that only the owner reads."""
        return {
            "keys": [asdict(key) for key in self.keys.values()],
            "devices": self.devices,
            "policy": self.policy,
            "tokens": self._tokens,
        }

    def from_json(self, kept: dict[str, Any]) -> None:
        """Take over what `to_json` gave."""
        self.keys = {row["id"]: AuthKey(**row) for row in kept["keys"]}
        self.devices, self.policy, self._tokens = kept["devices"], kept["policy"], kept["tokens"]

    # -- keys -----------------------------------------------------------------------------------------------------
    def create_key(self, capabilities: dict[str, Any], tags: list[str], expiry_s: int, description: str) -> AuthKey:
        """Mint a tagged key; Refusal 400 without tags, or with a word that is no tag."""
        if not tags:
            raise Refusal(400, "tailnet-owned auth key must have tags set")
        wrong = [tag for tag in tags if not _TAG.match(tag)]
        if wrong:
            raise Refusal(400, f"requested tags [{' '.join(wrong)}] are invalid or not permitted")
        key_id = f"k{secrets.token_hex(6)}CNTRL"
        secret = f"tskey-auth-{key_id}-{secrets.token_hex(16)}"
        key = AuthKey(key_id, capabilities, tags, description, time.time(), expiry_s or NINETY_DAYS_S, secret)
        self.keys[key_id] = key
        self._events.add("tailscale.key.created", key_id=key_id, tags=tags, description=description)
        return key

    def key(self, key_id: str) -> AuthKey:
        """One key; Refusal 404."""
        key = self.keys.get(key_id)
        if key is None:
            raise Refusal(404, "no such key")
        return key

    def delete_key(self, key_id: str) -> None:
        """Revoke a key."""
        self.key(key_id)
        del self.keys[key_id]
        self._events.add("tailscale.key.deleted", key_id=key_id)

    # -- policy ---------------------------------------------------------------------------------------------------
    def policy_text(self) -> str:
        """The stored text, else the default's."""
        return DEFAULT_POLICY if self.policy is None else self.policy

    def etag(self) -> str:
        """Quoted SHA-256 of the text."""
        return f'"{hashlib.sha256(self.policy_text().encode()).hexdigest()}"'

    def set_policy(self, text: str, if_match: str | None) -> None:
        """Store a policy; empty text restores the default. Refusal 412 when `if_match` is not the policy of now."""
        wanted = (if_match or "").strip('"')
        fits = self.policy is None if wanted == "ts-default" else wanted in ("", self.etag().strip('"'))
        if not fits:
            raise Refusal(412, "precondition failed, invalid old hash")
        self.policy = text or None
        self._events.add("tailscale.acl.set", reset=not text, etag=self.etag())

    # -- devices --------------------------------------------------------------------------------------------------
    def plant_device(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Add a device, with made-up values for what is not given."""
        number = len(self.devices) + 1
        device_id = str(wanted.get("id") or secrets.randbelow(10**16))
        hostname = str(wanted.get("hostname") or f"device-{number}")
        device = {
            "addresses": [f"100.64.0.{number}"],
            "id": device_id,
            "nodeId": f"n{device_id}CNTRL",
            "name": f"{hostname}.tail0000.ts.net",
            "hostname": hostname,
            "user": "tagged-devices",
            "tags": [],
            "authorized": True,
            "keyExpiryDisabled": True,
            "expires": "0001-01-01T00:00:00Z",
            "created": rfc3339(time.time()),
            "lastSeen": None,
            "connectedToControl": True,
            "isEphemeral": True,
            "isExternal": False,
            "machineKey": f"mkey:{secrets.token_hex(32)}",
            "nodeKey": f"nodekey:{secrets.token_hex(32)}",
            "os": "linux",
            "clientVersion": "",
            "updateAvailable": False,
            "blocksIncomingConnections": False,
            "enabledRoutes": [],
            "advertisedRoutes": [],
            **{key: value for key, value in wanted.items() if key != "id"},
        }
        self.devices[device_id] = device
        return device

    def device(self, device_id: str) -> dict[str, Any]:
        """By id or node id; Refusal 404."""
        for device in self.devices.values():
            if device_id in (device["id"], device["nodeId"]):
                return device
        raise Refusal(404, "no such device")

    def delete_device(self, device_id: str) -> None:
        """Remove it from the tailnet."""
        device = self.device(device_id)
        del self.devices[device["id"]]
        self._events.add("tailscale.device.deleted", device_id=device["id"], hostname=device["hostname"])

    # -- tokens ---------------------------------------------------------------------------------------------------
    def mint_token(self) -> str:
        """An OAuth access token for an hour."""
        token = f"tskey-oauth-{secrets.token_hex(16)}"
        self._tokens[token] = time.time() + TOKEN_S
        return token

    def token_is_valid(self, token: str) -> bool:
        """Known and not expired."""
        return self._tokens.get(token, 0.0) > time.time()
