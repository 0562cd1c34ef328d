"""Which GPUs are free where, on hosts with which CUDA, at which price; requests consume them. Used by `cloud`.

PURE. A shelf is one row of the inventory: GPU type x data centre x cloud x CUDA version. Its GPUs come out of a pool;
rows of `inventory` have a pool each, the shorthands `stock` and `stock_default` make one pool for a GPU type that all
data centres and both clouds draw from. A shelf's GPUs sit in hosts of `gpus_per_host`, filled one after another.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localcloud.errors import Problem
from localcloud.facts import Facts, Gpu, InventoryRow
from localcloud.model import GpuWish, Pod, PodRequest, at_least

CLOUDS = ("SECURE", "COMMUNITY")


@dataclass(slots=True)
class Pool:
    """GPUs that nobody has."""

    free: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """One row; the price is for one GPU."""

    gpu_id: str
    data_center_id: str
    cloud: str
    cuda_version: str
    usd_per_hr: float
    pool: Pool

    @property
    def key(self) -> tuple[str, ...]:
        """What a pod remembers of it."""
        return self.gpu_id, self.data_center_id, self.cloud, self.cuda_version

    def has(self, count: int) -> bool:
        """Whether one pod can have so many."""
        return self.pool.free >= count


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a pod could go, for how much in all; CPU pods come from no shelf."""

    data_center_id: str
    cuda_version: str
    price_usd_per_hr: float
    shelf: Shelf | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a catalogue shows of one GPU type: free GPUs in all, by data centre, by CUDA version."""

    free: int
    by_data_center: Mapping[str, int]
    by_cuda: Mapping[str, int]


class Stock:
    """All shelves and hosts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._shelves: dict[str, list[Shelf]] = {}
        self._used: dict[str, int] = {}
        self.change({gpu.id: facts.stock.get(gpu.id, facts.stock_default) for gpu in facts.gpus}, facts.inventory)

    # -- what there is --------------------------------------------------------------------------------------------
    def change(self, counts: Mapping[str, int], rows: Sequence[InventoryRow] = ()) -> None:
        """So many are free from now on, wherever they are asked for; rows win, and are all there is of their GPU types.

        Problem 422 for what is not on offer, and nothing changed.
        """
        own = [self._shelf(row) for row in rows]
        shared = {key: list(_shelves_of(self._gpu(key, "stock"), self._facts, Pool(n))) for key, n in counts.items()}
        self._shelves |= shared | {row.gpu: [one for one in own if one.gpu_id == row.gpu] for row in rows}

    def free(self, gpu_id: str) -> int:
        """How many are free now, everywhere."""
        return _free(self._shelves.get(gpu_id, ()))

    def offer(self, wish: GpuWish, cloud: str, data_center_ids: Iterable[str]) -> Offer:
        """What is free for such a request in these data centres; too few for one pod counts as none."""
        centers = set(data_center_ids)
        fitting = [
            shelf
            for shelf in self._shelves.get(wish.id, ())
            if shelf.cloud == cloud and shelf.data_center_id in centers and cuda_fits(shelf.cuda_version, wish)
        ]
        with_room = [shelf for shelf in fitting if shelf.has(wish.count)]

        def by(name: str) -> dict[str, int]:
            keys = dict.fromkeys(getattr(shelf, name) for shelf in fitting)
            return {key: _free([one for one in with_room if getattr(one, name) == key]) for key in keys}

        return Offer(_free(with_room), by("data_center_id"), by("cuda_version"))

    # -- what pods take -------------------------------------------------------------------------------------------
    def find(self, request: PodRequest) -> Spot:
        """The first shelf that fits; Problem 400 when there is none."""
        centers = self._data_centers(request)
        if request.gpu is None:
            return self._spot_on_cpu(request, centers[0])
        gpu = self._facts.gpu(request.gpu.id)
        if gpu is None:
            raise Problem(400, f"unknown gpu id {request.hardware()!r}")
        for center in centers:
            for shelf in self._shelves[gpu.id]:
                fits = (shelf.data_center_id, shelf.cloud) == (center, request.cloud)
                if fits and request.gpu.count <= gpu.max_count and self._has(shelf, request.gpu):
                    return Spot(center, shelf.cuda_version, shelf.usd_per_hr * request.gpu.count, shelf)
        raise Problem(400, self._facts.texts.no_capacity)

    def take(self, spot: Spot, request: PodRequest) -> str:
        """Take its GPUs out; the host's name."""
        count = request.gpu.count if request.gpu else 0
        if spot.shelf is None:
            return f"{spot.data_center_id.lower()}-cpu-1"
        spot.shelf.pool.free -= count
        host = self._host_with_room(spot.shelf, count)
        self._used[host] = self._used.get(host, 0) + count
        return host

    def take_again(self, pod: Pod) -> bool:
        """GPUs for a stopped pod, on the host that it is tied to; False when others have them."""
        wish, shelf = pod.request.gpu, self._shelf_of(pod)
        if wish is None or shelf is None:
            return wish is None
        room = self._facts.gpus_per_host - self._used.get(pod.host, 0)
        if not shelf.has(wish.count) or room < wish.count:
            return False
        shelf.pool.free -= wish.count
        self.occupy(pod)
        return True

    def give_back(self, pod: Pod) -> None:
        """Put a pod's GPUs back."""
        wish, shelf = pod.request.gpu, self._shelf_of(pod)
        if wish:
            self._used[pod.host] = self._used.get(pod.host, 0) - wish.count
            if shelf:
                shelf.pool.free += wish.count

    def occupy(self, pod: Pod) -> None:
        """The pod is on its host (after a restart: its GPUs are taken already)."""
        if pod.request.gpu:
            self._used[pod.host] = self._used.get(pod.host, 0) + pod.request.gpu.count

    def _has(self, shelf: Shelf, wish: GpuWish) -> bool:
        return shelf.has(wish.count) and cuda_fits(shelf.cuda_version, wish)

    def _host_with_room(self, shelf: Shelf, count: int) -> str:
        stem = re.sub(r"[^a-z0-9.]+", "-", "-".join(shelf.key).lower())
        number = 1
        while self._used.get(f"{stem}-{number}", 0) + count > self._facts.gpus_per_host:
            number += 1
        return f"{stem}-{number}"

    def _spot_on_cpu(self, request: PodRequest, center_id: str) -> Spot:
        cpu = self._facts.cpu(request.cpu.id) if request.cpu else None
        if cpu is None or request.cpu is None:
            raise Problem(400, f"unknown cpu id {request.hardware()!r}")
        cuda = next(center.cuda_version for center in self._facts.data_centers if center.id == center_id)
        return Spot(center_id, cuda, cpu.usd_per_vcpu_hr * request.cpu.vcpu_count)

    def _data_centers(self, request: PodRequest) -> Sequence[str]:
        """Those asked for, in that order: what the service calls a preference, it enforces."""
        known = [center.id for center in self._facts.data_centers]
        unknown = [name for name in request.data_center_ids if name not in known]
        if unknown:
            raise Problem(400, f"unknown data center {unknown[0]!r}")
        return request.data_center_ids or known

    def _shelf_of(self, pod: Pod) -> Shelf | None:
        key = (pod.request.hardware(), pod.data_center_id, pod.request.cloud, pod.cuda_version)
        return next((shelf for shelf in self._shelves.get(key[0], ()) if shelf.key == key), None)

    def _shelf(self, row: InventoryRow) -> Shelf:
        gpu = self._gpu(row.gpu, "inventory")
        center = next((center for center in self._facts.data_centers if center.id == row.data_center), None)
        price = gpu.price_usd_per_hr(row.cloud) if row.usd_per_hr is None else row.usd_per_hr
        if center is None:
            raise _not_on_offer(f"inventory: unknown data center {row.data_center!r}")
        if price is None:
            raise _not_on_offer(f"inventory: {row.gpu} has no price in {row.cloud}; give usd_per_hr")
        return Shelf(gpu.id, center.id, row.cloud, row.cuda_version or center.cuda_version, price, Pool(row.free))

    def _gpu(self, gpu_id: str, where: str) -> Gpu:
        gpu = self._facts.gpu(gpu_id)
        if gpu is None:
            raise _not_on_offer(f"{where}: unknown gpu id {gpu_id!r}")
        return gpu

    def rows(self) -> list[InventoryRow]:
        """The rows that do not share their GPUs with others, as they are now."""
        return [
            InventoryRow(
                data_center=shelf.data_center_id,
                gpu=shelf.gpu_id,
                cloud="SECURE" if shelf.cloud == "SECURE" else "COMMUNITY",
                free=shelf.pool.free,
                cuda_version=shelf.cuda_version,
                usd_per_hr=shelf.usd_per_hr,
            )
            for shelves in self._shelves.values()
            for shelf in shelves
            if not _shared(shelves)
        ]

    # -- over a restart -------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """What is free, in the words of the settings."""
        shared = {gpu_id: _free(shelves) for gpu_id, shelves in self._shelves.items() if _shared(shelves)}
        return {"stock": shared, "inventory": [row.model_dump() for row in self.rows()]}

    def from_json(self, kept: dict[str, Any]) -> None:
        """Take over what `to_json` gave."""
        self.change(kept["stock"], [InventoryRow.model_validate(row) for row in kept["inventory"]])


def _shelves_of(gpu: Gpu, facts: Facts, pool: Pool) -> Iterable[Shelf]:
    """Everywhere, out of one pool."""
    for center in facts.data_centers:
        for cloud in CLOUDS:
            price = gpu.price_usd_per_hr(cloud)
            for cuda in (center.cuda_version, *center.more_cuda_versions) if price is not None else ():
                yield Shelf(gpu.id, center.id, cloud, cuda, price or 0.0, pool)


def _free(shelves: Iterable[Shelf]) -> int:
    return sum(pool.free for pool in _pools(shelves))


def _shared(shelves: Sequence[Shelf]) -> bool:
    return len(_pools(shelves)) < len(shelves)


def _pools(shelves: Iterable[Shelf]) -> list[Pool]:
    return list({id(shelf.pool): shelf.pool for shelf in shelves}.values())


def _not_on_offer(text: str) -> Problem:
    return Problem(422, text, errors=[text])


def cuda_fits(version: str, wish: GpuWish | None) -> bool:
    """Whether a host's CUDA version satisfies the exact list, or the floor."""
    if wish is None:
        return True
    if wish.allowed_cuda_versions:
        return version in wish.allowed_cuda_versions
    return wish.min_cuda_version is None or at_least(version, wish.min_cuda_version)
