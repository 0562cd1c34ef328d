"""Account secrets with fixed names: made, rotated in place, removed. The plain class under `secret.Secret`."""

from __future__ import annotations

from typing import Protocol

import structlog

from podfleet.errors import ApiUnavailable, RequestRejected
from podfleet.providers.runpod.wire import AccountSecret

log = structlog.get_logger()
CONFLICT = 409
NOT_FOUND = 404


class KeepsSecrets(Protocol):
    """The part of the client that is needed here."""

    def find_secret(self, name: str) -> AccountSecret | None: ...
    def create_secret(self, name: str, value: str, description: str) -> AccountSecret: ...
    def update_secret(self, secret_id: str, value: str, description: str) -> None: ...
    def delete_secret(self, secret_id: str) -> bool: ...


class SecretCore:
    """Names are unique in an account, so every verb is idempotent by name. Values are in no log and no error."""

    def __init__(self, client: KeepsSecrets) -> None:
        self._client = client

    def put(self, name: str, value: str, description: str) -> str:
        """The secret of this name with this value, made or rotated; its id. Pods that refer to it are not touched."""
        if found := self._client.find_secret(name):
            return self._rotate(found, value, description)
        try:
            secret = self._client.create_secret(name, value, description)
        except (RequestRejected, ApiUnavailable) as error:  # taken meanwhile, or made by a POST without an answer
            if isinstance(error, RequestRejected) and error.status != CONFLICT:
                raise
            found = self._client.find_secret(name)
            if found is None:
                raise
            return self._rotate(found, value, description)
        log.info("secret.created", name=name, secret_id=secret.id)
        return secret.id

    def update(self, secret_id: str, name: str, value: str, description: str) -> None:
        """Rotate by id; where the secret has vanished meanwhile, make it again under its name."""
        try:
            self._client.update_secret(secret_id, value, description)
        except RequestRejected as error:
            if error.status != NOT_FOUND:
                raise
            self.put(name, value, description)

    def exists(self, secret_id: str, name: str) -> bool:
        found = self._client.find_secret(name)
        return found is not None and found.id == secret_id

    def delete(self, secret_id: str) -> None:
        """An absent secret is a success."""
        self._client.delete_secret(secret_id)

    def _rotate(self, found: AccountSecret, value: str, description: str) -> str:
        self._client.update_secret(found.id, value, description)
        log.info("secret.rotated", name=found.name, secret_id=found.id)
        return found.id
