"""The catalogue's JSON: GPU types, CPU flavours, data centres; their queries. Called by `catalog_api`.

PURE.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.errors import Problem
from localcloud.facts import Cpu, DataCenter, Facts, Gpu
from localcloud.model import GpuWish
from localcloud.stock import Stock
from localcloud.wire_base import bad_query, matching, words

GPU_PRODUCTS = ("POD", "CLUSTER", "SERVERLESS")
CPU_PRODUCTS = ("POD", "SERVERLESS")
INCLUDES = ("GPU_AVAILABILITY", "CPU_AVAILABILITY")
VOLUME_TYPES = ("STANDARD", "HIGH_PERFORMANCE")
REGIONS = (
    *("NORTH_AMERICA", "SOUTH_AMERICA", "EUROPE", "ASIA", "MIDDLE_EAST", "AFRICA", "OCEANIA", "ANTARCTICA"),
    "UNKNOWN",
)
COMPLIANCE = (
    *("GDPR", "ISO_IEC_27001", "ISO_14001", "PCI_DSS", "HITRUST", "SOC_1_TYPE_2", "SOC_2_TYPE_2", "SOC_3_TYPE_2"),
    *("ITAR", "FISMA_HIGH", "HIPAA", "RENEWABLE"),
)
_GPU_RULES = {
    "count": r"[1-9][0-9]{0,5}",
    "cloud": "SECURE|COMMUNITY",
    "countryCodes": "[A-Z]{2}(,[A-Z]{2})*",
    "minCudaVersion": r"[0-9]{1,4}(\.[0-9]{1,4})?",
    "cudaVersions": r"[0-9]{1,4}\.[0-9]{1,4}(,[0-9]{1,4}\.[0-9]{1,4})*",
}
_CPU_RULES = {"vcpuCount": r"[1-9][0-9]{0,5}"}


@dataclass(frozen=True, slots=True)
class Availability:
    """Query of a GPU request that includes availability."""

    count: int = 1
    cloud: str = "SECURE"
    country_codes: tuple[str, ...] = ()
    min_cuda_version: str | None = None
    cuda_versions: tuple[str, ...] = ()

    def admits(self, center: DataCenter) -> bool:
        """Whether the query looks at this data centre."""
        return not self.country_codes or center.country in self.country_codes


def availability_query(params: Mapping[str, str]) -> Availability | None:
    """The catalogue's query rules: include needs product (400), filters need include (400), malformed ones 422."""
    if not _included(params, GPU_PRODUCTS, _GPU_RULES):
        return None
    if "minCudaVersion" in params and "cudaVersions" in params:
        raise Problem(400, "minCudaVersion and cudaVersions exclude each other")
    filters = matching(params, _GPU_RULES)
    return Availability(
        count=int(filters.get("count", "1")),
        cloud=filters.get("cloud", "SECURE"),
        country_codes=_split(filters.get("countryCodes")),
        min_cuda_version=filters.get("minCudaVersion"),
        cuda_versions=_split(filters.get("cudaVersions")),
    )


def cpu_query(params: Mapping[str, str]) -> int | None:
    """The number of vCPUs to look for; None when availability was not asked for."""
    if not _included(params, CPU_PRODUCTS, _CPU_RULES):
        return None
    count = int(matching(params, _CPU_RULES).get("vcpuCount", "2"))
    if count < 2:
        raise bad_query("vcpuCount: must be at least 2")
    if count & (count - 1):
        raise Problem(400, "vcpuCount must be a power of 2")
    return count


def _included(params: Mapping[str, str], products: tuple[str, ...], rules: Mapping[str, str]) -> bool:
    if "include" not in params:
        filters = [key for key in ("product", *rules) if key in params]
        if filters:
            raise Problem(400, f"{filters[0]} requires include=AVAILABILITY")
        return False
    words(params, "include", ("AVAILABILITY",))
    if "product" not in params:
        raise Problem(400, "include=AVAILABILITY requires product")
    words(params, "product", products)
    return True


def gpu_json(gpu: Gpu, facts: Facts, stock: Stock, query: Availability | None) -> dict[str, Any]:
    """One GPU type; stock only when it was asked for. A cloud that does not offer it has price 0."""
    price = {"secure": gpu.secure_usd_per_hr, "community": gpu.community_usd_per_hr}
    body: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": gpu.manufacturer,
        "memory": gpu.memory_gb,
        "secure": gpu.secure_usd_per_hr is not None,
        "community": gpu.community_usd_per_hr is not None,
        "price": {key: value or 0.0 for key, value in price.items()},
        "maxCount": {key: gpu.max_count if value is not None else 0 for key, value in price.items()},
    }
    return {**body, **_availability(gpu, facts, stock, query)} if query else body


def _availability(gpu: Gpu, facts: Facts, stock: Stock, query: Availability) -> dict[str, Any]:
    floor = query.min_cuda_version if query.min_cuda_version is None else _major_minor(query.min_cuda_version)
    wish = GpuWish(gpu.id, query.count, query.cuda_versions, floor)
    centers = {center.id: center.name for center in facts.data_centers if query.admits(center)}
    offer = stock.offer(wish, query.cloud, centers)
    if not offer.by_data_center:
        return {"availability": "NONE"}
    return {
        "availability": facts.stock_word(offer.free),
        "dataCenters": [
            {"id": center_id, "name": centers[center_id], "availability": facts.stock_word(free)}
            for center_id, free in offer.by_data_center.items()
        ],
        "cudaVersions": [
            {"version": version, "available": free > 0} for version, free in sorted(offer.by_cuda.items())
        ],
    }


def cpu_json(cpu: Cpu, facts: Facts, vcpu_count: int | None) -> dict[str, Any]:
    """One CPU flavour. There is always enough of it, up to its biggest size."""
    body: dict[str, Any] = {
        "id": cpu.id,
        "name": cpu.name,
        "group": cpu.group,
        "vcpu": {"min": cpu.min_vcpu, "max": cpu.max_vcpu},
        "ramGbPerVcpu": cpu.ram_gb_per_vcpu,
        "price": {
            "securePerVcpu": cpu.usd_per_vcpu_hr,
            "serverlessPerVcpu": cpu.serverless_usd_per_vcpu_hr,
        },
    }
    if vcpu_count is None:
        return body
    if vcpu_count > cpu.max_vcpu:
        return {**body, "availability": "NONE"}
    centers = [{"id": center.id, "name": center.name, "availability": "HIGH"} for center in facts.data_centers]
    return {**body, "availability": "HIGH", "dataCenters": centers}


@dataclass(frozen=True, slots=True)
class CenterQuery:
    """Query of a data centre request: what to include, and which ones."""

    include: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    volume_types: tuple[str, ...] = ()
    compliance: tuple[str, ...] = ()
    global_network: bool | None = None

    def admits(self, center: DataCenter) -> bool:
        """Regions are alternatives, the others must all be there."""
        return (
            (not self.regions or center.region in self.regions)
            and set(self.volume_types) <= set(center.network_volume_types)
            and set(self.compliance) <= set(center.compliance)
            and self.global_network in (None, center.global_network)
        )


def center_query(params: Mapping[str, str]) -> CenterQuery:
    """From the query; 422 for unknown words."""
    flag = words(params, "globalNetwork", ("true", "false"))
    return CenterQuery(
        words(params, "include", INCLUDES),
        words(params, "regions", REGIONS),
        words(params, "networkVolumeTypes", VOLUME_TYPES),
        words(params, "compliance", COMPLIANCE),
        flag[0] == "true" if flag else None,
    )


def center_json(center: DataCenter, facts: Facts, stock: Stock, include: tuple[str, ...]) -> dict[str, Any]:
    """One data centre; stock of the secure cloud, for one GPU, only when it was asked for."""
    body: dict[str, Any] = {
        "id": center.id,
        "name": center.name,
        "region": center.region,
        "globalNetwork": center.global_network,
        "networkVolumeTypes": list(center.network_volume_types),
        "compliance": list(center.compliance),
    }
    if "GPU_AVAILABILITY" in include:
        rows = list(_secure_gpus(center, facts, stock))
        body |= {"gpuAvailability": rows} if rows else {}
    if "CPU_AVAILABILITY" in include:
        body["cpuAvailability"] = [{"id": cpu.id, "name": cpu.name, "availability": "HIGH"} for cpu in facts.cpus]
    return body


def _secure_gpus(center: DataCenter, facts: Facts, stock: Stock) -> Iterator[dict[str, Any]]:
    for gpu in facts.gpus:
        offer = stock.offer(GpuWish(gpu.id), "SECURE", [center.id])
        if center.id in offer.by_data_center:
            yield {"id": gpu.id, "name": gpu.name, "availability": facts.stock_word(offer.free)}


def _major_minor(version: str) -> str:
    return version if "." in version else f"{version}.0"


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
