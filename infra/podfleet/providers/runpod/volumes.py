"""Network volumes: made, adopted by name, grown, removed. The plain class under `volume.Volume`.

A volume stays in its data centre and of its type, and never gets smaller. It costs money as long as it exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import structlog

from podfleet.config import NAMESPACE
from podfleet.errors import ApiUnavailable, ConfigError, ProviderError, RequestRejected
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.ending import Watch
from podfleet.providers.runpod.lookup import Lookup
from podfleet.providers.runpod.wire_account import Volume

log = structlog.get_logger()
IN_USE = frozenset({400, 409})
DETACH_S = 60.0  # a pod that is gone from the lists may hold its volume a little longer
ASK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class VolumeWish:
    """What is wanted. Name, data centre and type make it; the size may grow."""

    name: str
    size_gb: int
    data_center_id: str
    type: str

    def is_met_by(self, volume: Volume) -> bool:
        """The same volume, whatever its size. What the API does not say does not tell two apart."""
        return (
            volume.name == self.name
            and volume.data_center_id in (self.data_center_id, "")
            and volume.type in (self.type, "")
        )


class KeepsVolumes(Protocol):
    """The part of the client that is needed here."""

    def list_volumes(self) -> tuple[Volume, ...]: ...
    def create_volume(self, name: str, *, size_gb: int, data_center_id: str, type_: str) -> Volume: ...
    def update_volume(self, volume_id: str, *, size_gb: int) -> Volume: ...
    def delete_volume(self, volume_id: str) -> bool: ...


class VolumeCore:
    """Every verb is idempotent."""

    def __init__(self, client: KeepsVolumes, lookup: Lookup, engine: Watch, clock: Clock) -> None:
        self._client = client
        self._lookup = lookup
        self._engine = engine
        self._clock = clock

    def create(self, wish: VolumeWish) -> Volume:
        """Adopt the volume of this name, data centre and type (grown where it is too small), or make it."""
        if found := self._find(wish):
            log.info("volume.adopted", name=wish.name, volume_id=found.id, size_gb=found.size_gb)
            return self.grow(found.id, wish)
        self._engine.require(f"making volume {wish.name}")
        try:
            made = self._client.create_volume(
                wish.name, size_gb=wish.size_gb, data_center_id=wish.data_center_id, type_=wish.type
            )
        except ApiUnavailable as error:
            found = self._lookup.after(error, lambda: self._find(wish))
            if found is None:
                raise
            made = found
        log.info("volume.created", name=wish.name, volume_id=made.id, size_gb=made.size_gb)
        return made

    def read(self, volume_id: str) -> Volume | None:
        return next((each for each in self._client.list_volumes() if each.id == volume_id), None)

    def grow(self, volume_id: str, wish: VolumeWish) -> Volume:
        """Raises ConfigError where it would have to shrink, before anything is sent; RequestRejected: it is gone."""
        volume = self.read(volume_id)
        if volume is None:
            raise RequestRejected(f"volume {volume_id} is gone: `pulumi refresh`, then `up` makes it again", status=404)
        if problem := shrink_problem(volume.size_gb, wish.size_gb):
            raise ConfigError(problem)
        if volume.size_gb == wish.size_gb:
            return volume
        try:
            grown = self._client.update_volume(volume_id, size_gb=wish.size_gb)
        except ApiUnavailable:
            seen = self.read(volume_id)
            if seen is None or seen.size_gb != wish.size_gb:
                raise
            grown = seen
        log.info("volume.grown", name=wish.name, volume_id=volume_id, from_gb=volume.size_gb, to_gb=wish.size_gb)
        return grown

    def delete(self, volume_id: str) -> None:
        """With its data; an absent one is a success. Waits a little for pods that have just ended."""
        give_up_s = self._clock.monotonic_s() + DETACH_S
        while True:
            try:
                self._client.delete_volume(volume_id)
            except RequestRejected as error:
                if error.status not in IN_USE or self._clock.monotonic_s() >= give_up_s:
                    raise
                log.info("volume.in_use", volume_id=volume_id, reason=str(error))
            else:
                if self.read(volume_id) is None:
                    log.info("volume.deleted", volume_id=volume_id)
                    return
                if self._clock.monotonic_s() >= give_up_s:
                    text = f"volume {volume_id} is still listed {DETACH_S:.0f} s after its delete"
                    raise ProviderError(f"{text}: it still costs money, run `pulumi destroy` or `up` again")
            self._clock.sleep(ASK_AGAIN_S)

    def _find(self, wish: VolumeWish) -> Volume | None:
        """Of several (a POST that was carried out twice) the biggest; the others are named, none is removed here."""
        same = sorted(
            (each for each in self._client.list_volumes() if wish.is_met_by(each)),
            key=lambda each: (-each.size_gb, each.id),
        )
        if len(same) > 1:
            others = [each.id for each in same[1:]]
            log.warning("volume.more_than_one", name=wish.name, kept=same[0].id, others=others)
        return same[0] if same else None


def shrink_problem(old_gb: float, new_gb: float) -> str:
    """Why this size cannot be; empty where it can. One line, for the preview."""
    if new_gb >= old_gb:
        return ""
    told = f"{NAMESPACE}:volumeGb: {new_gb:.0f} is less than the volume has ({old_gb:.0f}): a volume cannot shrink"
    return f"{told}, nothing was changed; put {old_gb:.0f} back, or set 0 first, which removes it and all that is on it"
