"""The tailnet's list of devices, by Tailscale's API. Called by `sweeping`.

The credentials are those of the tailnet's resources: TAILSCALE_API_KEY, or the pair of an OAuth client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from podfleet.errors import SignalError
from podfleet.urls import is_loopback

TIMEOUT_S = 10.0
KEY, CLIENT_ID, CLIENT_SECRET = "TAILSCALE_API_KEY", "TAILSCALE_OAUTH_CLIENT_ID", "TAILSCALE_OAUTH_CLIENT_SECRET"


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `offline_s`: 0 while it is connected, None where the API does not say since when it is not."""

    id: str
    hostname: str
    tags: tuple[str, ...]
    offline_s: float | None


class _Device(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str = ""
    node_id: str = Field("", alias="nodeId")
    hostname: str = ""
    tags: list[str] | None = None
    last_seen: datetime | None = Field(None, alias="lastSeen")
    connected: bool | None = Field(None, alias="connectedToControl")

    def view(self, now_s: float) -> Device:
        return Device(self.node_id or self.id, self.hostname, tuple(self.tags or ()), self._offline_s(now_s))

    def _offline_s(self, now_s: float) -> float | None:
        """A device that is connected has no `lastSeen` with some servers, and an old one with others."""
        if self.connected:
            return 0.0
        if self.last_seen is None or self.last_seen.tzinfo is None:
            return None
        return max(0.0, now_s - self.last_seen.timestamp())


class _Devices(BaseModel):
    model_config = ConfigDict(extra="ignore")

    devices: list[_Device]


class TailnetDevices:
    """One tailnet's. Every method raises SignalError; no error's text has a credential in it."""

    def __init__(
        self, url: str, tailnet: str, environ: Mapping[str, str], *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._environ = environ
        self._tailnet = tailnet
        base_url = f"{url.rstrip('/')}/api/v2"
        self._http = httpx.Client(
            base_url=base_url, timeout=TIMEOUT_S, transport=transport, trust_env=not is_loopback(url)
        )

    def __enter__(self) -> TailnetDevices:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def devices(self, *, now_s: float) -> tuple[Device, ...]:
        """All devices of the tailnet."""
        answer = self._ask("GET", f"/tailnet/{self._tailnet}/devices")
        try:
            return tuple(device.view(now_s) for device in _Devices.model_validate_json(answer.content).devices)
        except ValidationError as error:
            raise SignalError(f"the tailnet's devices: not understood: {error.errors()[0]['msg']}") from None

    def remove(self, device_id: str) -> None:
        """Take it out of the tailnet; an absent device is a success."""
        self._ask("DELETE", f"/device/{device_id}", missing_is_fine=True)

    def _ask(self, method: str, path: str, *, missing_is_fine: bool = False) -> httpx.Response:
        answer = self._send(method, path, headers={"Authorization": self._authorization()})
        if answer.is_success or (missing_is_fine and answer.status_code == httpx.codes.NOT_FOUND):
            return answer
        raise SignalError(f"the tailnet's API answered {answer.status_code} to {method} {path.split('/')[1]}")

    def _authorization(self) -> str:
        if key := self._environ.get(KEY):
            return f"Bearer {key}"
        pair = (self._environ[CLIENT_ID], self._environ[CLIENT_SECRET])
        answer = self._send("POST", "/oauth/token", auth=pair, data={"grant_type": "client_credentials"})
        try:
            return f"Bearer {answer.raise_for_status().json()['access_token']}"
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            raise SignalError(f"the tailnet's API gives no token: it answered {answer.status_code}") from None

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **how)
        except (httpx.HTTPError, ValueError) as error:  # a key that fits into no header is a ValueError with the key
            raise SignalError(f"the tailnet's API: {type(error).__name__}") from None


def has_credentials(environ: Mapping[str, str]) -> bool:
    """Whether the API can be asked at all."""
    return bool(environ.get(KEY) or (environ.get(CLIENT_ID) and environ.get(CLIENT_SECRET)))
