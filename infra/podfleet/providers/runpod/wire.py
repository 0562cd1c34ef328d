"""RunPod's v2 JSON, read once: pydantic models at the border, frozen dataclasses for everybody else.

Used by `client` alone. Fields that we do not use are ignored; a field that a pod may lack has a default, so that a
new server version cannot hide a pod's id from us.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

ENDED = frozenset({"EXITED", "ERROR", "TERMINATED"})  # any other status, also one that is new to us, is alive
UID_VARIABLE = "PODFLEET_UID"
SPEC_HASH_VARIABLE = "PODFLEET_SPEC_HASH"
SLOT_VARIABLE = "PODFLEET_SLOT"
EXPIRES_VARIABLE = "PODFLEET_EXPIRES_AT_S"


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where a pod's sshd answers."""

    host: str
    port: int
    username: str


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod as the API lists it, cut down to what podfleet looks at."""

    id: str
    name: str
    status: str
    uid: str = ""
    spec_hash: str = ""
    slot: str = ""
    expires_at_s: float | None = None
    gpu: str = ""
    cloud: str = ""
    data_center_id: str = ""
    cuda_version: str = ""
    cost_usd_per_hr: float = 0.0
    created_at_s: float = 0.0
    ssh: SshAddress | None = None
    has_runtime: bool = True  # False: its container does not run, or has never been started
    image: str = ""
    disk_gb: int = 0
    ports: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def live(self) -> bool:
        """It runs or is on its way there. EXITED and ERROR are not, and go on costing something."""
        return self.status not in ENDED


@dataclass(frozen=True, slots=True)
class PodRequest:
    """One candidate of a create: exactly one GPU type, one cloud, at most one data centre."""

    name: str
    image: str
    gpu: str
    cloud: str
    data_center_id: str | None
    min_cuda_version: str
    disk_gb: int
    ports: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    registry_id: str = ""
    volume_id: str = ""
    volume_path: str = ""
    args: str = ""  # in place of the image's own command

    def body(self) -> dict[str, Any]:
        """The JSON of `POST /v2/pods`."""
        gpu: dict[str, Any] = {"id": self.gpu, "count": 1}
        if self.min_cuda_version:
            gpu["minCudaVersion"] = self.min_cuda_version
        body: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "cloud": self.cloud,
            "gpu": gpu,
            "disk": self.disk_gb,
            "env": self.env,
            "ports": list(self.ports),
        }
        if self.data_center_id:
            body["dataCenterIds"] = [self.data_center_id]
        if self.registry_id:
            body["registry"] = self.registry_id
        if self.args:
            body["args"] = self.args
        if self.volume_id:
            body["mounts"] = {"network": [{"volumeId": self.volume_id, "path": self.volume_path}]}
        return body

    def __str__(self) -> str:
        return f"{self.gpu} {self.cloud} {self.data_center_id or 'any data centre'}"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a pod's logs; `source` is `container` or `system`."""

    at: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """What the catalogue says of one GPU type in one cloud; price of a single GPU. `places`: data centre, stock."""

    gpu: str
    name: str
    memory_gb: float
    cloud: str
    usd_per_hr: float
    availability: str
    places: tuple[tuple[str, str], ...] = ()
    cuda_versions: tuple[str, ...] = ()
    spot_usd_per_hr: float | None = None


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """A secret's name card; the API never returns the value."""

    id: str
    name: str


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _WireSsh(_Wire):
    host: str
    port: int
    username: str = "root"


class _WireSshWays(_Wire):
    direct: _WireSsh | None = None


class _WireGpu(_Wire):
    id: str = ""


class WirePod(_Wire):
    """The pod object."""

    id: str = Field(min_length=1)
    name: str = ""
    status: str = "UNKNOWN"
    env: dict[str, str] = {}
    gpu: _WireGpu | None = None
    cloud: str | None = None
    data_center_id: str | None = Field(None, alias="dataCenterId")
    cuda_version: str | None = Field(None, alias="cudaVersion")
    cost: float | None = None
    created_at: str | None = Field(None, alias="createdAt")
    ssh: _WireSshWays | None = None
    runtime: Any = None
    image: str | None = None
    disk: int | None = None
    ports: list[str] | None = None

    @field_validator("env", mode="before")
    @classmethod
    def _no_env(cls, value: object) -> object:
        return value or {}

    def view(self) -> PodView:
        direct = self.ssh.direct if self.ssh else None
        return PodView(
            id=self.id,
            name=self.name,
            status=self.status,
            uid=self.env.get(UID_VARIABLE, ""),
            spec_hash=self.env.get(SPEC_HASH_VARIABLE, ""),
            slot=self.env.get(SLOT_VARIABLE, ""),
            expires_at_s=_number(self.env.get(EXPIRES_VARIABLE)),
            gpu=self.gpu.id if self.gpu else "",
            cloud=self.cloud or "",
            data_center_id=self.data_center_id or "",
            cuda_version=self.cuda_version or "",
            cost_usd_per_hr=self.cost or 0.0,
            created_at_s=_epoch_s(self.created_at),
            ssh=SshAddress(direct.host, direct.port, direct.username) if direct else None,
            has_runtime=self.runtime is not None or "runtime" not in self.model_fields_set,  # left out: nothing is said
            image=self.image or "",
            disk_gb=self.disk or 0,
            ports=tuple(self.ports or ()),
            env=tuple(self.env.items()),
        )


class _WirePage(_Wire):
    has_next_page: bool = Field(False, alias="hasNextPage")
    next_cursor: str | None = Field(None, alias="nextCursor")


class WirePodPage(_Wire):
    """One page of the pod list. No `pagination` means that this is all."""

    pods: list[WirePod]
    pagination: _WirePage | None = None


class _WirePrice(_Wire):
    secure: float | None = None
    community: float | None = None
    spot: float | None = None  # RunPod names none since 2026


class _WireDataCenter(_Wire):
    id: str
    availability: str | None = None


class _WireCudaVersion(_Wire):
    version: str


class _WireGpuType(_Wire):
    id: str
    name: str = ""
    memory: float = 0
    secure: bool | None = None
    community: bool | None = None
    price: _WirePrice | None = None
    availability: str = "NONE"
    data_centers: list[_WireDataCenter] = Field(default_factory=list, alias="dataCenters")
    cuda_versions: list[_WireCudaVersion] = Field(default_factory=list, alias="cudaVersions")

    def offer(self, cloud: str) -> GpuOffer | None:
        prices = self.price or _WirePrice()
        price = prices.secure if cloud == "SECURE" else prices.community
        if not price:  # both prices are always there: 0 is a cloud that does not offer this type
            return None
        places = tuple((place.id, place.availability or self.availability) for place in self.data_centers)
        versions = tuple(each.version for each in self.cuda_versions)
        return GpuOffer(self.id, self.name, self.memory, cloud, price, self.availability, places, versions, prices.spot)


class WireCatalog(_Wire):
    """The GPU catalogue."""

    gpus: list[_WireGpuType]

    def offers(self, cloud: str) -> tuple[GpuOffer, ...]:
        return tuple(offer for gpu in self.gpus if (offer := gpu.offer(cloud)))


def log_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    """Server-sent events → log lines. An event that is not a log line is passed over."""
    parts: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            parts.append(line.removeprefix("data:").removeprefix(" "))
        elif not line.strip() and parts:
            event = _event("\n".join(parts))
            parts = []
            if event:
                yield event


def _event(text: str) -> LogLine | None:
    try:
        event = json.loads(text)
    except ValueError:
        return None
    if not isinstance(event, dict) or "line" not in event:
        return None
    return LogLine(str(event.get("ts", "")), str(event.get("source", "")), str(event["line"]))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _epoch_s(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
