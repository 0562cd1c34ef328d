"""What is left of a fleet in the account when all its resources are gone. The plain class under `holdings.Holdings`.

A create that was killed between its request and the state leaves a secret, a registry login or a volume that nobody
records. The next `up` adopts it by name; this removes it where there is no next `up`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from podfleet.errors import ProviderError, RequestRejected
from podfleet.podspec import is_account_name
from podfleet.providers.runpod.wire import AccountSecret
from podfleet.providers.runpod.wire_account import Registry, Volume

log = structlog.get_logger()


class HoldsThings(Protocol):
    """The part of the client that is needed here."""

    def list_secrets(self) -> tuple[AccountSecret, ...]: ...
    def delete_secret(self, secret_id: str) -> bool: ...
    def list_registries(self) -> tuple[Registry, ...]: ...
    def delete_registry(self, registry_id: str) -> bool: ...
    def list_volumes(self) -> tuple[Volume, ...]: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    list: Callable[[], Sequence[AccountSecret | Registry | Volume]]
    delete: Callable[[str], object]


class LeftoverCore:
    """Deleted last of all resources, when no pod of ours is left."""

    def __init__(self, client: HoldsThings, delete_volume: Callable[[str], None]) -> None:
        self._kinds = (
            _Kind("volume", client.list_volumes, delete_volume),
            _Kind("registry login", client.list_registries, client.delete_registry),
            _Kind("secret", client.list_secrets, client.delete_secret),
        )

    def remove(self, uid: str, prefix: str) -> None:
        """All of ours, by name. Raises the first trouble after everything was tried."""
        troubles: list[ProviderError] = []
        for kind in self._kinds:
            try:
                self._remove(kind, uid, prefix)
            except ProviderError as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def _remove(self, kind: _Kind, uid: str, prefix: str) -> None:
        try:
            found = kind.list()
        except RequestRejected as error:  # the key may not look: then it has made none either
            log.info("leftovers.unseen", kind=kind.name, reason=str(error))
            return
        for each in found:
            if is_account_name(each.name, prefix=prefix, uid=uid):
                kind.delete(each.id)
                log.info("leftover.removed", kind=kind.name, name=each.name, id=each.id)
