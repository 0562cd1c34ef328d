"""The typed form of `facts.yaml`: what is on offer, what it costs, how long things take, what errors say.

The daemon loads it once; `SettingsPatch` is what a running cloud takes over `PATCH /_emu/settings`.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from localcloud.errors import FactsError

PACKAGED = Path(__file__).with_name("facts.yaml")
_MERGED_KEYS = ("stock", "images", "image_cuda", "image_commands", "image_env", "fault_defaults", "texts")


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Fact):
    """One GPU type of the catalogue."""

    id: str
    name: str
    memory_gb: int
    pool: str | None = None
    manufacturer: str = "NVIDIA"
    secure_usd_per_hr: float | None = None
    community_usd_per_hr: float | None = None
    max_count: int = 8

    def price_usd_per_hr(self, cloud: str) -> float | None:
        """The price of one GPU; None where this cloud does not offer it."""
        return self.secure_usd_per_hr if cloud == "SECURE" else self.community_usd_per_hr


class Cpu(_Fact):
    """One CPU flavour."""

    id: str
    name: str
    usd_per_vcpu_hr: float
    serverless_usd_per_vcpu_hr: float = 0.0
    group: str = ""
    min_vcpu: int = 2
    max_vcpu: int = 32
    ram_gb_per_vcpu: float = 2.0


class DataCenter(_Fact):
    """One data centre; a request without a CUDA floor gets a host with the first version."""

    id: str
    name: str
    country: str
    region: str
    cuda_version: str
    more_cuda_versions: tuple[str, ...] = ()
    network_volume_types: tuple[str, ...] = ("STANDARD",)
    compliance: tuple[str, ...] = ()
    global_network: bool = False


class InventoryRow(_Fact):
    """GPUs of one type, free in one data centre and cloud; its own CUDA version and price where they differ."""

    data_center: str
    gpu: str
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    free: int = Field(ge=0)
    cuda_version: str | None = Field(default=None, pattern=r"^\d+\.\d+$")
    usd_per_hr: float | None = Field(default=None, gt=0)


class StoragePrices(_Fact):
    """What network volumes cost; a volume of `large_from_gb` and more is charged at the lower rate as a whole."""

    usd_per_gb_month: float = Field(ge=0)
    large_usd_per_gb_month: float = Field(ge=0)
    large_from_gb: int = Field(ge=0)


class FaultDefaults(_Fact):
    """What a kind of fault uses where its order says nothing."""

    times: int | None = Field(default=None, ge=0)
    probability: float | None = Field(default=None, gt=0, le=1)
    status: int | None = Field(default=None, ge=400, le=599)
    detail: str | None = None
    delay_s: float | None = Field(default=None, ge=0)

    def given(self) -> dict[str, Any]:
        """Only what is said."""
        return self.model_dump(exclude_none=True)


class Texts(_Fact):
    """The service's own words in error answers."""

    no_capacity: str
    no_gpu_to_resume: str
    low_balance: str
    rate_limited: str
    no_token: str
    bad_token: str
    forbidden: str
    not_found: str
    gone: str
    host_failure: str
    driver_too_old: str
    exited_by_service: str
    secret_missing: str
    pull_denied: str
    method_not_allowed: str
    graphql_unauthorized: str
    pod_not_found_to_terminate: str
    pod_not_found_to_stop: str


class Facts(_Fact):
    """Everything in `facts.yaml`, checked."""

    pod_command: tuple[str, ...] = Field(min_length=1)
    image_commands: dict[str, tuple[str, ...]] = {}
    image_env: dict[str, str] = {}
    pod_sees: tuple[str, ...] = ()
    private_images: tuple[str, ...] = ()
    pod_key_rights: tuple[str, ...] = ()
    graphql: Literal["on", "gone"]
    v1: Literal["gone"]
    boot_s: float = Field(ge=0)
    ssh_s: float = Field(ge=0)
    ssh_impostor_names: tuple[str, ...] = ()
    runtime_lag_s: float = Field(ge=0)
    stale_port_s: float = Field(ge=0)
    spot_grace_s: float = Field(ge=0)
    restart_backoff_s: float = Field(ge=0)
    grace_s: float = Field(ge=0)
    balance_usd: float
    credit_needed_hr: float = Field(ge=0)
    page_size: int = Field(ge=1)
    rate_limit_per_minute: int = Field(ge=1)
    rate_limit_per_hour: int = Field(ge=1)
    rate_limit_per_day: int = Field(ge=1)
    stock_default: int = Field(ge=0)
    stock: dict[str, int] = {}
    inventory: tuple[InventoryRow, ...] = ()
    gpus_per_host: int = Field(ge=1)
    available_from: dict[Literal["LOW", "MEDIUM", "HIGH"], int]
    images: dict[str, float] = {}
    image_cuda: dict[str, str] = {}
    pull_gb_per_s: float = Field(gt=0)
    state: Literal["memory", "kept"] = "memory"
    gpus: tuple[Gpu, ...]
    cpus: tuple[Cpu, ...] = ()
    storage: StoragePrices
    data_centers: tuple[DataCenter, ...] = Field(min_length=1)
    check_tag_owners: bool = False
    fault_defaults: dict[str, FaultDefaults] = {}
    texts: Texts

    def gpu(self, gpu_id: str) -> Gpu | None:
        """The GPU type with exactly this id."""
        return next((gpu for gpu in self.gpus if gpu.id == gpu_id), None)

    def cpu(self, cpu_id: str) -> Cpu | None:
        """The CPU flavour with exactly this id."""
        return next((cpu for cpu in self.cpus if cpu.id == cpu_id), None)

    def command_of(self, image: str) -> tuple[str, ...]:
        """ENTRYPOINT and CMD of an image."""
        fits = (command for pattern, command in self.image_commands.items() if fnmatch.fnmatch(image, pattern))
        return next(fits, self.pod_command)

    def needs_registry(self, image: str) -> bool:
        """Whether only a registry login can pull this image."""
        return any(fnmatch.fnmatch(image, pattern) for pattern in self.private_images)

    def image_gb(self, image: str) -> float:
        """What must be pulled; nothing for an image that no pattern fits."""
        return next((size for pattern, size in self.images.items() if fnmatch.fnmatch(image, pattern)), 0.0)

    def cuda_of_image(self, image: str) -> str | None:
        """The CUDA version that the image's driver check wants at least."""
        return next((cuda for pattern, cuda in self.image_cuda.items() if fnmatch.fnmatch(image, pattern)), None)

    def stock_word(self, free: int) -> str:
        """NONE, LOW, MEDIUM or HIGH for so many free GPUs."""
        words = [word for word, least in self.available_from.items() if free >= least]
        return words[-1] if words and free > 0 else "NONE"


class SettingsPatch(_Fact):
    """What can be changed while the cloud runs; absent = as before. Stock numbers are the GPUs free from now on."""

    boot_s: float | None = Field(default=None, ge=0)
    ssh_s: float | None = Field(default=None, ge=0)
    ssh_impostor_names: tuple[str, ...] | None = None
    runtime_lag_s: float | None = Field(default=None, ge=0)
    stale_port_s: float | None = Field(default=None, ge=0)
    spot_grace_s: float | None = Field(default=None, ge=0)
    restart_backoff_s: float | None = Field(default=None, ge=0)
    grace_s: float | None = Field(default=None, ge=0)
    page_size: int | None = Field(default=None, ge=1)
    rate_limit_per_minute: int | None = Field(default=None, ge=1)
    balance_usd: float | None = None
    stock: dict[str, int] | None = None
    inventory: tuple[InventoryRow, ...] | None = None
    images: dict[str, float] | None = None
    image_cuda: dict[str, str] | None = None
    pull_gb_per_s: float | None = Field(default=None, gt=0)
    pod_command: tuple[str, ...] | None = Field(default=None, min_length=1)
    image_commands: dict[str, tuple[str, ...]] | None = None
    image_env: dict[str, str] | None = None
    private_images: tuple[str, ...] | None = None
    pod_key_rights: tuple[str, ...] | None = None
    graphql: Literal["on", "gone"] | None = None

    def changes(self) -> dict[str, Any]:
        """Only the keys that were given."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


def load(overrides: Path | None = None) -> Facts:
    """The packaged facts with a file's keys put over them; FactsError names file and key."""
    base = _mapping(PACKAGED)
    extra = _mapping(overrides) if overrides else {}
    for key in _MERGED_KEYS:
        if isinstance(extra.get(key), Mapping):
            extra = {**extra, key: {**base[key], **extra[key]}}
    try:
        return Facts.model_validate({**base, **extra})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FactsError(f"{overrides or PACKAGED}: {where}: {first['msg']}") from None


def _mapping(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text("utf-8"), Loader=_LOADER)  # noqa: S506 - both loaders are the safe ones
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FactsError(f"{path}: {error}".replace("\n", " ")) from None
    if not isinstance(loaded, dict):
        raise FactsError(f"{path}: must be a mapping of keys")
    return loaded


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
