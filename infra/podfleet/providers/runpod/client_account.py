"""The client's methods for what an account holds beside pods: secrets, registry logins, volumes, bills, the balance.

Base of `client.RunpodClient`, which sends; nobody else makes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import httpx
from pydantic import ValidationError

from podfleet.providers.runpod.answers import JsonObject, Model, checked, hiding, parse
from podfleet.providers.runpod.wire import AccountSecret
from podfleet.providers.runpod.wire_account import (
    Balance,
    BillRecord,
    Registry,
    Volume,
    WireBalance,
    WireBilling,
    WireRegistry,
    WireRegistryPage,
    WireSecret,
    WireSecretPage,
    WireVolume,
    WireVolumePage,
)

BALANCE_QUERY = "query { myself { clientBalance currentSpendPerHr } }"


class AccountCalls(ABC):
    """A method per endpoint. Creates are sent once: ApiUnavailable with `maybe_done` means, it may be there."""

    # Account secrets

    def list_secrets(self) -> tuple[AccountSecret, ...]:
        """The name cards of all; no value can be read back."""
        pages = self._pages("/account/secrets", WireSecretPage, {})
        return tuple(AccountSecret(secret.id, secret.name) for page in pages for secret in page.secrets)

    def find_secret(self, name: str) -> AccountSecret | None:
        """By exact name; the value cannot be read back."""
        for page in self._pages("/account/secrets", WireSecretPage, {"name": name}):
            for secret in page.secrets:
                if secret.name == name:
                    return AccountSecret(secret.id, secret.name)
        return None

    def create_secret(self, name: str, value: str, description: str) -> AccountSecret:
        """RequestRejected with status 409 when the name is taken."""
        body = {"name": name, "value": value, "description": description}
        with hiding(value):
            secret = parse(self._send("POST", "/account/secrets", json=body), WireSecret)
        return AccountSecret(secret.id, secret.name)

    def update_secret(self, secret_id: str, value: str, description: str) -> None:
        """Rotate the value in place: pods that refer to it are not touched."""
        body = {"value": value, "description": description}
        with hiding(value):
            self._send("PATCH", f"/account/secrets/{checked(secret_id)}", json=body)

    def delete_secret(self, secret_id: str) -> bool:
        """False where there is none any more."""
        return self._delete(f"/account/secrets/{checked(secret_id)}")

    # Registry logins

    def list_registries(self) -> tuple[Registry, ...]:
        """The name cards of all."""
        pages = self._pages("/registries", WireRegistryPage, {})
        return tuple(registry.view() for page in pages for registry in page.registries)

    def create_registry(self, name: str, username: str, password: str) -> Registry:
        """There is no change of a login afterwards: another one is another registry."""
        body = {"name": name, "username": username, "password": password}
        with hiding(password):
            return parse(self._send("POST", "/registries", json=body), WireRegistry).view()

    def delete_registry(self, registry_id: str) -> bool:
        """False where there is none any more."""
        return self._delete(f"/registries/{checked(registry_id)}")

    # Network volumes

    def list_volumes(self) -> tuple[Volume, ...]:
        """All network volumes, all pages."""
        pages = self._pages("/network-volumes", WireVolumePage, {})
        return tuple(volume.view() for page in pages for volume in page.volumes)

    def create_volume(self, name: str, *, size_gb: int, data_center_id: str, type_: str) -> Volume:
        """It costs money from now on, used or not."""
        body = {"name": name, "size": size_gb, "dataCenter": data_center_id, "type": type_}
        return parse(self._send("POST", "/network-volumes", json=body), WireVolume).view()

    def update_volume(self, volume_id: str, *, size_gb: int) -> Volume:
        """Grow it; RunPod makes none smaller."""
        response = self._send("PATCH", f"/network-volumes/{checked(volume_id)}", json={"size": size_gb})
        return parse(response, WireVolume).view()

    def delete_volume(self, volume_id: str) -> bool:
        """With all that is on it. False where there is none any more."""
        return self._delete(f"/network-volumes/{checked(volume_id)}")

    # Money

    def pod_billing(self, *, start_s: float, end_s: float, bucket: str = "hour") -> tuple[BillRecord, ...]:
        """What each pod of the account cost between two moments, by whole buckets."""
        params = {"startTime": _rfc3339(start_s), "endTime": _rfc3339(end_s), "bucketSize": bucket}
        return tuple(bill for page in self._pages("/billing/pods", WireBilling, params) for bill in page.views())

    def balance(self) -> Balance | None:
        """By GraphQL, while that lives. None on any trouble: nothing may depend on it."""
        try:
            response = self._graphql(BALANCE_QUERY)
            return WireBalance.model_validate_json(response.content).view() if response.is_success else None
        except (httpx.HTTPError, ValidationError):
            return None

    # What the client brings

    @abstractmethod
    def _pages(self, path: str, model: type[Model], params: Mapping[str, str]) -> Iterator[Model]:
        """All pages of a list."""

    @abstractmethod
    def _send(self, method: str, path: str, *, json: JsonObject | None = None) -> httpx.Response:
        """One request that has succeeded."""

    @abstractmethod
    def _delete(self, path: str) -> bool:
        """False where there is nothing any more."""

    @abstractmethod
    def _graphql(self, query: str) -> httpx.Response:
        """One request, whatever the answer."""


def _rfc3339(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
