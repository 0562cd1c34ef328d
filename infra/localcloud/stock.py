"""How many GPUs of each type are free, and where a request can be placed at which price. Used by `cloud`.

PURE.
"""

from dataclasses import dataclass

from localcloud.errors import Problem
from localcloud.facts import DataCenter, Facts
from localcloud.model import GpuWish, PodRequest


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod goes, for how much in all."""

    data_center: DataCenter
    price_usd_per_hr: float


class Stock:
    """Free GPUs per type."""

    def __init__(self, free: dict[str, int]) -> None:
        self._free = free

    def free(self, gpu_id: str) -> int:
        """How many are free now."""
        return self._free.get(gpu_id, 0)

    def set(self, counts: dict[str, int]) -> None:
        """So many are free from now on."""
        self._free.update(counts)

    def take(self, wish: GpuWish | None) -> bool:
        """Take GPUs out; False (and nothing taken) when there are too few."""
        if wish is None:
            return True
        if self.free(wish.id) < wish.count:
            return False
        self._free[wish.id] -= wish.count
        return True

    def give_back(self, wish: GpuWish | None) -> None:
        """Put GPUs back."""
        if wish:
            self._free[wish.id] = self.free(wish.id) + wish.count


def place(request: PodRequest, facts: Facts) -> Place:
    """The first data centre that fits, and the price; Problem when no host could ever fit."""
    return Place(_data_center(request, facts), _price_usd_per_hr(request, facts))


def _price_usd_per_hr(request: PodRequest, facts: Facts) -> float:
    if request.cpu:
        cpu = facts.cpu(request.cpu.id)
        if cpu is None:
            raise Problem(400, f"unknown cpu id {request.cpu.id!r}")
        return cpu.usd_per_vcpu_hr * request.cpu.vcpu_count
    wish = request.gpu
    gpu = facts.gpu(wish.id) if wish else None
    if wish is None or gpu is None:
        raise Problem(400, f"unknown gpu id {request.hardware()!r}")
    price = gpu.price_usd_per_hr(request.cloud)
    if price is None or wish.count > gpu.max_count:
        raise Problem(400, facts.texts.no_capacity)
    return price * wish.count


def _data_center(request: PodRequest, facts: Facts) -> DataCenter:
    known = {center.id for center in facts.data_centers}
    unknown = [name for name in request.data_center_ids if name not in known]
    if unknown:
        raise Problem(400, f"unknown data center {unknown[0]!r}")
    for center in facts.data_centers:
        wanted = not request.data_center_ids or center.id in request.data_center_ids
        if wanted and cuda_fits(center.cuda_version, request.gpu):
            return center
    raise Problem(400, facts.texts.no_capacity)


def cuda_fits(version: str, wish: GpuWish | None) -> bool:
    """Whether a host's CUDA version satisfies the exact list, or the floor."""
    if wish is None:
        return True
    if wish.allowed_cuda_versions:
        return version in wish.allowed_cuda_versions
    return wish.min_cuda_version is None or _numbers(version) >= _numbers(wish.min_cuda_version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
