"""The typed form of `facts.yaml`: what is on offer, what it costs, how long things take, what errors say.

The daemon loads it once; `SettingsPatch` is what a running cloud takes over `PATCH /_emu/settings`.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from localcloud.errors import FactsError

PACKAGED = Path(__file__).with_name("facts.yaml")
_MERGED_KEYS = ("stock", "image_commands", "image_env", "fault_defaults", "texts")


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


class DataCenter(_Fact):
    """One data centre; all its hosts report one CUDA version."""

    id: str
    name: str
    country: str
    region: str
    cuda_version: str


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


class Facts(_Fact):
    """Everything in `facts.yaml`, checked."""

    pod_command: tuple[str, ...] = Field(min_length=1)
    image_commands: dict[str, tuple[str, ...]] = {}
    image_env: dict[str, str] = {}
    pod_sees: tuple[str, ...] = ()
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
    gpus: tuple[Gpu, ...]
    cpus: tuple[Cpu, ...] = ()
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

    def initial_stock(self) -> dict[str, int]:
        """Free GPUs per type at the start."""
        return {gpu.id: self.stock.get(gpu.id, self.stock_default) for gpu in self.gpus}


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
    pod_command: tuple[str, ...] | None = Field(default=None, min_length=1)
    image_commands: dict[str, tuple[str, ...]] | None = None
    image_env: dict[str, str] | None = None

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
