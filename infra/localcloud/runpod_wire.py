"""RunPod v2's JSON, strictly: bodies in; pods, GPUs and secrets out. Called by `runpod_api` and `control_api`.

Written from RunPod's documentation, not from the client under test. An unknown field is an error that names it.
"""

import re
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, StringConstraints

from localcloud.environment import MAX_USER_VARIABLES, PUBLIC_IP, vcpu_count
from localcloud.errors import Problem
from localcloud.facts import Facts, Gpu
from localcloud.model import ACTIONS, CpuWish, GpuWish, Pod, PodRequest, Secret, Status
from localcloud.podlog import rfc3339
from localcloud.stock import Stock, cuda_fits

PortText = Annotated[str, StringConstraints(pattern=r"^\d{1,5}/(tcp|http)$")]
CudaVersion = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-/]*$", max_length=191)]
SecretValue = Annotated[str, StringConstraints(max_length=16 * 2**20 - 1)]
CGNAT_IP = "100.65.0.1"
_FILTER_RULES = {
    "count": r"[1-9]\d*",
    "cloud": "SECURE|COMMUNITY",
    "countryCodes": "[A-Z]{2}(,[A-Z]{2})*",
    "minCudaVersion": r"\d+(\.\d+)?",
    "cudaVersions": r"\d+\.\d+(,\d+\.\d+)*",
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuBody(_Body):
    """`gpu` of a create."""

    id: StrictStr
    count: Annotated[StrictInt, Field(ge=1)] = 1
    allowed_cuda_versions: tuple[CudaVersion, ...] | None = Field(default=None, alias="allowedCudaVersions")
    min_cuda_version: CudaVersion | None = Field(default=None, alias="minCudaVersion")
    min_ram_per_gpu: StrictInt | None = Field(default=None, alias="minRamPerGpu")
    min_vcpu_count_per_gpu: StrictInt | None = Field(default=None, alias="minVcpuCountPerGpu")

    def to_wish(self) -> GpuWish:
        """Memory and CPU floors are accepted; every host of ours satisfies them."""
        return GpuWish(self.id, self.count, self.allowed_cuda_versions or (), self.min_cuda_version)


class CpuBody(_Body):
    """`cpu` of a create."""

    id: StrictStr
    vcpu_count: StrictInt = Field(alias="vcpuCount", ge=1)


class PersistentMount(_Body):
    """A disk that stays with the pod."""

    size: StrictInt = Field(ge=10)
    path: StrictStr


class NetworkMount(_Body):
    """A network volume."""

    volume_id: StrictStr = Field(alias="volumeId")
    path: StrictStr


class Mounts(_Body):
    """`mounts` of a create."""

    persistent: PersistentMount | None = None
    network: tuple[NetworkMount, ...] | None = Field(default=None, max_length=1)


class CreatePod(_Body):
    """`POST /v2/pods`."""

    name: StrictStr = Field(min_length=1)
    image: StrictStr | None = None
    template_id: StrictStr | None = Field(default=None, alias="templateId")
    args: StrictStr | None = None
    cmd: tuple[StrictStr, ...] | None = None
    entrypoint: tuple[StrictStr, ...] | None = None
    disk: StrictInt = Field(default=10, ge=1)
    env: dict[StrictStr, StrictStr] = {}
    ports: tuple[PortText, ...] = ()
    registry: StrictStr | None = None
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    gpu: GpuBody | None = None
    cpu: CpuBody | None = None
    data_center_ids: tuple[StrictStr, ...] = Field(default=(), alias="dataCenterIds")
    mounts: Mounts | None = None
    global_networking: bool = Field(default=False, alias="globalNetworking")
    start_ssh: bool = Field(default=False, alias="startSsh")
    start_jupyter: bool = Field(default=False, alias="startJupyter")

    def to_request(self, facts: Facts) -> PodRequest:
        """The request, after the rules over several fields (400) and references (404)."""
        self._check(facts)
        return PodRequest(
            name=self.name,
            image=self.image or "",
            gpu=self.gpu.to_wish() if self.gpu else None,
            cpu=CpuWish(self.cpu.id, self.cpu.vcpu_count) if self.cpu else None,
            cloud=self.cloud,
            disk_gb=self.disk,
            env=dict(self.env),
            ports=self.ports,
            args=self.args,
            entrypoint=self.entrypoint,
            cmd=self.cmd,
            data_center_ids=self.data_center_ids,
            mounts=self.mounts.model_dump(by_alias=True, exclude_none=True) if self.mounts else None,
            global_networking=self.global_networking,
        )

    def _check(self, facts: Facts) -> None:
        gpu, mounts = self.gpu, self.mounts
        wrong = {
            "exactly one of gpu and cpu is required": (gpu is None) == (self.cpu is None),
            "image is required without templateId": not self.image and not self.template_id,
            "allowedCudaVersions and minCudaVersion exclude each other": bool(
                gpu and gpu.allowed_cuda_versions and gpu.min_cuda_version
            ),
            "mounts.persistent and mounts.network exclude each other": bool(
                mounts and mounts.persistent and mounts.network
            ),
            "mounts.persistent is not available on CPU pods": bool(mounts and mounts.persistent and self.cpu),
            "vcpuCount must be a power of 2": bool(self.cpu and self.cpu.vcpu_count & (self.cpu.vcpu_count - 1)),
            f"at most {MAX_USER_VARIABLES} environment variables": len(self.env) > MAX_USER_VARIABLES,
            "args excludes cmd and entrypoint": self.args is not None and bool(self.cmd or self.entrypoint),
        }
        for text, applies in wrong.items():
            if applies:
                raise Problem(400, text)
        if self.template_id or self.registry or (mounts and mounts.network):
            raise Problem(404, facts.texts.not_found)


class Action(_Body):
    """`POST /v2/pods/{id}/action`."""

    action: Literal["start", "stop", "restart", "terminate"]


class CreateSecret(_Body):
    """`POST /v2/account/secrets`."""

    name: SecretName
    value: SecretValue
    description: StrictStr = ""


class PatchSecret(_Body):
    """`PATCH /v2/account/secrets/{id}`."""

    value: SecretValue | None = None
    description: StrictStr | None = None


def pod_json(pod: Pod) -> dict[str, Any]:
    """A pod as the service shows it."""
    request = pod.request
    charged = pod.status not in (Status.EXITED, Status.TERMINATED)
    return {
        "id": pod.id,
        "name": pod.name,
        "status": pod.status.value,
        "actions": list(ACTIONS[pod.status]),
        "image": request.image,
        "args": request.args,
        "cmd": list(request.cmd) if request.cmd is not None else None,
        "entrypoint": list(request.entrypoint) if request.entrypoint is not None else None,
        "disk": request.disk_gb,
        "mounts": request.mounts,
        "ports": list(request.ports),
        "env": dict(request.env),
        "registry": None,
        **_hardware(request),
        "cloud": request.cloud,
        "dataCenterId": pod.data_center_id,
        "cudaVersion": pod.cuda_version,
        "ssh": {"proxy": None, "direct": _ssh(pod)},
        "template": None,
        "cost": pod.price_usd_per_hr if charged else 0.0,
        "locked": False,
        "runtime": _runtime(pod),
        "globalNetworking": {"enabled": request.global_networking},
        "createdAt": rfc3339(pod.created_at_s),
        "startedAt": None if pod.running_since_s is None else rfc3339(pod.running_since_s),
    }


def _hardware(request: PodRequest) -> dict[str, Any]:
    vcpus = vcpu_count(request)
    if request.cpu:
        return {"cpu": {"id": request.cpu.id, "vcpuCount": vcpus, "memory": 2 * vcpus}}
    gpu = request.gpu or GpuWish("")
    return {"gpu": {"id": gpu.id, "count": gpu.count, "vcpuCount": vcpus, "memory": 24 * gpu.count}}


def _ssh(pod: Pod) -> dict[str, Any] | None:
    now_s = time.time()
    port = pod.ports_shown(now_s).get(22)
    if port is None or not pod.shows_runtime(now_s):
        return None
    return {"host": PUBLIC_IP, "port": port, "username": "root", "command": f"ssh root@{PUBLIC_IP} -p {port}"}


def _runtime(pod: Pod) -> dict[str, Any] | None:
    now_s = time.time()
    if pod.running_since_s is None or not pod.shows_runtime(now_s):
        return None
    gpus = pod.request.gpu.count if pod.request.gpu else 0
    tcp = [{"private": a, "public": b, "type": "tcp", "ip": PUBLIC_IP} for a, b in pod.ports_shown(now_s).items()]
    http = [{"private": a, "public": None, "type": "http", "ip": CGNAT_IP} for a in pod.request.private_ports("http")]
    return {
        "uptime": int(now_s - pod.running_since_s),
        "gpus": [{"util": 0, "memoryUtil": 0}] * gpus,
        "cpu": {"util": 0},
        "memory": {"util": 0},
        "ports": tcp + http,
    }


def secret_json(secret: Secret) -> dict[str, Any]:
    """A secret without its value."""
    return {
        "id": secret.id,
        "name": secret.name,
        "description": secret.description,
        "createdAt": rfc3339(secret.created_at_s),
        "valueLastUpdatedAt": rfc3339(secret.updated_at_s),
    }


class Availability(BaseModel):
    """Query of a catalogue request that includes availability."""

    count: int = Field(default=1, ge=1)
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    country_codes: tuple[str, ...] = ()
    min_cuda_version: str | None = None
    cuda_versions: tuple[str, ...] = ()


def gpu_json(gpu: Gpu, facts: Facts, stock: Stock, query: Availability | None) -> dict[str, Any]:
    """One GPU type; stock only when it was asked for."""
    price = {"secure": gpu.secure_usd_per_hr, "community": gpu.community_usd_per_hr}
    body: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": gpu.manufacturer,
        "memory": gpu.memory_gb,
        "secure": gpu.secure_usd_per_hr is not None,
        "community": gpu.community_usd_per_hr is not None,
        "price": {key: value for key, value in price.items() if value is not None},
        "maxCount": {key: gpu.max_count if value is not None else 0 for key, value in price.items()},
    }
    return {**body, **_availability(gpu, facts, stock, query)} if query else body


def _availability(gpu: Gpu, facts: Facts, stock: Stock, query: Availability) -> dict[str, Any]:
    floor = query.min_cuda_version if query.min_cuda_version is None else _major_minor(query.min_cuda_version)
    wish = GpuWish(gpu.id, query.count, query.cuda_versions, floor)
    offered = gpu.price_usd_per_hr(query.cloud) is not None
    centers = [
        center
        for center in facts.data_centers
        if offered
        and cuda_fits(center.cuda_version, wish)
        and (not query.country_codes or center.country in query.country_codes)
    ]
    free = stock.free(gpu.id) if centers and stock.free(gpu.id) >= query.count else 0
    word = stock_word(free)
    return {
        "availability": word,
        "dataCenters": [{"id": center.id, "name": center.name, "availability": word} for center in centers],
        "cudaVersions": [
            {"version": version, "available": free > 0} for version in sorted({c.cuda_version for c in centers})
        ],
    }


def stock_word(free: int) -> str:
    """NONE, LOW, MEDIUM, HIGH; where the service draws the lines is not known."""
    if free <= 0:
        return "NONE"
    return "LOW" if free <= 2 else "MEDIUM" if free <= 6 else "HIGH"


def _major_minor(version: str) -> str:
    return version if "." in version else f"{version}.0"


def availability_query(params: dict[str, str]) -> Availability | None:
    """The catalogue's query rules: include needs product (400), filters need include (400), malformed ones 422."""
    filters = {key: value for key, value in params.items() if key in _FILTER_RULES}
    include = params.get("include")
    if include is None:
        if filters or "product" in params:
            raise Problem(400, f"{next(iter(filters), 'product')} requires include=AVAILABILITY")
        return None
    if include != "AVAILABILITY":
        raise Problem(422, "malformed query", errors=[f"include: {include!r} is not AVAILABILITY"])
    if "product" not in params:
        raise Problem(400, "include=AVAILABILITY requires product")
    if params["product"] not in ("POD", "CLUSTER", "SERVERLESS"):
        raise Problem(422, "malformed query", errors=["product: must be POD, CLUSTER or SERVERLESS"])
    if "minCudaVersion" in params and "cudaVersions" in params:
        raise Problem(400, "minCudaVersion and cudaVersions exclude each other")
    return _checked_filters(filters)


def _checked_filters(filters: dict[str, str]) -> Availability:
    errors = [f"{key}: malformed" for key, value in filters.items() if not re.fullmatch(_FILTER_RULES[key], value)]
    if errors:
        raise Problem(422, "malformed query", errors=errors)
    return Availability(
        count=int(filters.get("count", "1")),
        cloud="COMMUNITY" if filters.get("cloud") == "COMMUNITY" else "SECURE",
        country_codes=_words(filters.get("countryCodes")),
        min_cuda_version=filters.get("minCudaVersion"),
        cuda_versions=_words(filters.get("cudaVersions")),
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
