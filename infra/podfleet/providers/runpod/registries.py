"""Logins for private image registries: made, looked for, removed. The plain class under `registry.Registry`.

RunPod has no change of a login: another one is another registry, with another name (`podspec.registry_name`), made
before the old one goes. So a name says which login it is, and what is found under it can be adopted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from podfleet.errors import ApiUnavailable, RequestRejected
from podfleet.providers.runpod.ending import Watch
from podfleet.providers.runpod.lookup import Lookup
from podfleet.providers.runpod.wire_account import Registry

log = structlog.get_logger()
IN_USE = frozenset({400, 409})


class KeepsRegistries(Protocol):
    """The part of the client that is needed here."""

    def list_registries(self) -> tuple[Registry, ...]: ...
    def create_registry(self, name: str, username: str, password: str) -> Registry: ...
    def delete_registry(self, registry_id: str) -> bool: ...


class RegistryCore:
    """Every verb is idempotent. Neither user nor password is in a log or an error."""

    def __init__(self, client: KeepsRegistries, lookup: Lookup, engine: Watch) -> None:
        self._client = client
        self._lookup = lookup
        self._engine = engine

    def create(self, name: str, username: str, password: str) -> str:
        """Adopt what an interrupted run has made, or make it; its id."""
        if found := self._find(name):
            log.info("registry.adopted", name=name, registry_id=found.id)
            return found.id
        self._engine.require(f"making registry login {name}")
        try:
            made = self._client.create_registry(name, username, password)
        except ApiUnavailable as error:
            found = self._lookup.after(error, lambda: self._find(name))
            if found is None:
                raise
            made = found
        log.info("registry.created", name=name, registry_id=made.id)
        return made.id

    def exists(self, registry_id: str, name: str) -> bool:
        return any(each.id == registry_id and each.name == name for each in self._client.list_registries())

    def delete(self, registry_id: str) -> None:
        """An absent one is a success. One that a running pod still pulls with stays; `Holdings` removes it at last."""
        try:
            self._client.delete_registry(registry_id)
        except RequestRejected as error:
            if error.status not in IN_USE:
                raise
            log.warning("registry.left", registry_id=registry_id, reason=str(error), so="`destroy` removes it")

    def _find(self, name: str) -> Registry | None:
        """Of several (a POST that was carried out twice) always the same one."""
        same: Sequence[Registry] = [each for each in self._client.list_registries() if each.name == name]
        return min(same, key=lambda each: each.id, default=None)
