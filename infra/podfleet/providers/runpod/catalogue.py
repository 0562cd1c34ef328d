"""What RunPod offers now, read once for all creates of the process, and what it has refused since then.

Called by the create loop (`core.PodCore`) and for the price in a plan (`prices`). A catalogue that does not answer is
no reason to rent nothing: then the stack's own list of GPU types is asked for, in its order, at list prices.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from podfleet.binding import Market
from podfleet.errors import AuthError, Interrupted, ProviderError
from podfleet.gpus import GPUS
from podfleet.placement import CLOUDS, Offer, Place, Wish
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.wire import GpuOffer

log = structlog.get_logger()
UNKNOWN_STOCK = "UNKNOWN"
TIMES = 2
SLICE_S = 0.5  # who waits for another's reading looks up so often whether he is to stop
Key = tuple[str, str, str | None]


class ReadsOffers(Protocol):
    """The part of the client that is needed here."""

    def gpu_offers(self, *, cloud: str, min_cuda_version: str = "") -> tuple[GpuOffer, ...]: ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """One reading, asked for at `asked_s` (monotonic). `trouble`: why it could not be read.

    Since then the creates of the process note here where there was no room: a candidate that had none for two of them
    on end is not asked by the others before the next reading.
    """

    asked_s: float
    offers: tuple[Offer, ...] = ()
    trouble: str = ""
    _refused: dict[Key, tuple[int, ProviderError]] = field(default_factory=dict)

    def note(self, key: Key, error: ProviderError | None) -> None:
        """A POST for this candidate found no room; None: it made a pod."""
        if error is None:
            self._refused.pop(key, None)
        else:
            self._refused[key] = self._refused.get(key, (0, error))[0] + 1, error

    def refusal(self, key: Key) -> ProviderError | None:
        """Why it need not be asked."""
        times, error = self._refused.get(key, (0, None))
        return error if times >= TIMES else None


class Catalogue:
    """Thread-safe: whoever finds a reading that is new enough shares it, the others wait for the one that is read."""

    def __init__(self, client: ReadsOffers, clock: Clock, *, max_age_s: float) -> None:
        self._client = client
        self._clock = clock
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._shelves: dict[tuple[tuple[str, ...], str], Shelf] = {}

    def recent(self, clouds: tuple[str, ...], floor: str, *, not_before_s: float = float("-inf")) -> Shelf:
        """Not older than the poll interval, and asked for after `not_before_s`. Raises AuthError alone."""
        key = clouds, floor
        while not self._lock.acquire(timeout=SLICE_S):
            STOPPING.check()
        try:
            oldest_s = max(not_before_s, self._clock.monotonic_s() - self._max_age_s)
            if key not in self._shelves or self._shelves[key].asked_s < oldest_s:
                self._shelves[key] = self._read(clouds, floor)
            return self._shelves[key]
        finally:
            self._lock.release()

    def market(self, floor: str) -> Market | None:
        """Both clouds, with the CUDA floor and without it: what there would be with other filters.

        It is only for a message: None where it cannot be read, or where this process is to stop.
        """
        try:
            shelf = self.recent(CLOUDS, floor)
            any_cuda = self.recent(CLOUDS, "") if floor else shelf
        except (AuthError, Interrupted):
            return None
        return None if shelf.trouble or any_cuda.trouble else Market(shelf.offers, any_cuda.offers)

    def _read(self, clouds: tuple[str, ...], floor: str) -> Shelf:
        asked_s = self._clock.monotonic_s()
        try:
            return Shelf(asked_s, read_offers(self._client, clouds, floor))
        except AuthError:
            raise
        except ProviderError as error:
            log.warning("catalogue.silent", reason=str(error))
            return Shelf(asked_s, trouble=str(error))


def read_offers(client: ReadsOffers, clouds: Sequence[str], floor: str) -> tuple[Offer, ...]:
    """One request per cloud. Raises ProviderError."""
    return tuple(_offer(found) for cloud in clouds for found in client.gpu_offers(cloud=cloud, min_cuda_version=floor))


def blind(wish: Wish) -> tuple[Wish, tuple[Offer, ...]]:
    """Without a catalogue: the GPU types of the stack in their order, each in each cloud, as the table knows them."""
    offers = tuple(_from_table(gpu, cloud) for gpu in wish.gpu_types for cloud in wish.clouds)
    return replace(wish, rules=replace(wish.rules, order="listed")), offers


def _from_table(gpu: str, cloud: str) -> Offer:
    known = GPUS.get(gpu)
    price, vram_gb = (known.list_price_usd_per_hr(cloud), known.vram_gb) if known else (0.0, 0)
    return Offer(gpu, cloud, price, UNKNOWN_STOCK, vram_gb)


def _offer(found: GpuOffer) -> Offer:
    return Offer(
        gpu_id=found.gpu,
        cloud=found.cloud,
        price_usd_per_hr=found.usd_per_hr,
        stock=found.availability,
        vram_gb=found.memory_gb,
        places=tuple(Place(name, stock) for name, stock in found.places),
        cuda_versions=found.cuda_versions,
    )
