"""The JSON of pods and account secrets, strictly: bodies in, pods and secrets out. Called by the APIs.

Written from RunPod's documentation, not from the client under test. An unknown field is an error that names it.
"""

import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from localcloud.account import Account, Template
from localcloud.environment import MAX_USER_VARIABLES, PUBLIC_IP, vcpu_count
from localcloud.errors import Problem
from localcloud.model import CpuWish, GpuWish, Pod, PodRequest, Secret, Status
from localcloud.podlog import rfc3339
from localcloud.wire_base import (
    WHOLE,
    Body,
    CudaVersion,
    Env,
    Name,
    NetworkMount,
    PersistentMount,
    PortText,
    Positive,
)

SecretName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_.\-/]*$", max_length=191)]
SecretValue = Annotated[str, StringConstraints(strict=True, max_length=16 * 2**20 - 1)]
CGNAT_IP = "100.65.0.1"


class GpuBody(Body):
    """`gpu` of a create."""

    id: str
    count: Positive = 1
    allowed_cuda_versions: list[CudaVersion] = Field(default=[], alias="allowedCudaVersions")
    min_cuda_version: CudaVersion | None = Field(default=None, alias="minCudaVersion")
    min_ram_per_gpu: Positive | None = Field(default=None, alias="minRamPerGpu")
    min_vcpu_count_per_gpu: Positive | None = Field(default=None, alias="minVcpuCountPerGpu")

    def to_wish(self, template: Template | None) -> GpuWish:
        """Memory and CPU floors are accepted; every host of ours satisfies them."""
        allowed = tuple(self.allowed_cuda_versions)
        constrained = {"allowed_cuda_versions", "min_cuda_version"} & self.model_fields_set
        if template and not constrained:
            allowed = template.allowed_cuda_versions
        return GpuWish(self.id, self.count, allowed, self.min_cuda_version)


class CpuBody(Body):
    """`cpu` of a create."""

    id: Name
    vcpu_count: Annotated[int, Field(ge=2), WHOLE] = Field(alias="vcpuCount")


class Mounts(Body):
    """`mounts` of a pod."""

    persistent: PersistentMount | None = None
    network: Annotated[list[NetworkMount], Field(max_length=1)] | None = None

    def json(self) -> dict[str, Any]:  # type: ignore[override]
        """As the pod shows them; an empty list of networks is none."""
        return {key: value for key, value in self.model_dump(by_alias=True).items() if value}


class _Container(Body):
    """What a create and a change have in common."""

    nullable: ClassVar[tuple[str, ...]] = ("registry",)
    image: Name | None = None
    template_id: Name | None = Field(default=None, alias="templateId")
    args: str | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    disk: Positive | None = None
    env: Env | None = None
    ports: list[PortText] | None = None
    registry: str | None = None
    mounts: Mounts | None = None
    global_networking: bool | None = Field(default=None, alias="globalNetworking")

    def settings(self, template: Template | None) -> dict[str, Any]:
        """The container's settings by the names of `PodRequest`: the body's, else the template's; `env` is merged."""
        if len(self.env or {}) > MAX_USER_VARIABLES:
            raise Problem(400, f"at most {MAX_USER_VARIABLES} environment variables")
        if self.args is not None and (self.cmd or self.entrypoint):
            raise Problem(400, "args excludes cmd and entrypoint")
        taken = _of_template(template) if template else {}
        given = {
            "image": self.image,
            "args": self.args,
            "disk_gb": self.disk,
            "env": None if self.env is None else {**taken.get("env", {}), **self.env},
            "ports": None if self.ports is None else tuple(self.ports),
            "cmd": None if self.cmd is None else tuple(self.cmd),
            "entrypoint": None if self.entrypoint is None else tuple(self.entrypoint),
            "global_networking": self.global_networking,
        }
        settings = {**taken, **{key: value for key, value in given.items() if value is not None}}
        return {**settings, "registry": self.registry} if "registry" in self.model_fields_set else settings


class CreatePod(_Container):
    """`POST /v2/pods`."""

    name: Name
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    gpu: GpuBody | None = None
    cpu: CpuBody | None = None
    data_center_ids: list[str] = Field(default=[], alias="dataCenterIds")
    start_ssh: bool | None = Field(default=None, alias="startSsh")
    start_jupyter: bool | None = Field(default=None, alias="startJupyter")

    def to_request(self, account: Account) -> PodRequest:
        """The request, after the rules over several fields (400) and references (404)."""
        self._check()
        template = None if self.template_id is None else pod_template(account, self.template_id)
        settings = self.settings(template)
        if settings.get("registry") is not None:
            account.registry(settings["registry"])
        mounts = self._mounts(template)
        return PodRequest(
            **settings,
            name=self.name,
            gpu=self.gpu.to_wish(template) if self.gpu else None,
            cpu=CpuWish(self.cpu.id, self.cpu.vcpu_count) if self.cpu else None,
            cloud=self.cloud,
            data_center_ids=_centers(self.data_center_ids, mounts, account),
            mounts=mounts,
            injected=self._injected(template, account),
        )

    def _check(self) -> None:
        if self.image is None and self.template_id is None:
            raise Problem(422, "image is required without templateId", errors=["image: required without templateId"])
        gpu, mounts = self.gpu, self.mounts
        wrong = {
            "exactly one of gpu and cpu is required": (gpu is None) == (self.cpu is None),
            "allowedCudaVersions and minCudaVersion exclude each other": bool(
                gpu and gpu.allowed_cuda_versions and gpu.min_cuda_version
            ),
            "mounts.persistent and mounts.network exclude each other": bool(
                mounts and mounts.persistent and mounts.network
            ),
            "mounts.persistent is not available on CPU pods": bool(mounts and mounts.persistent and self.cpu),
            "vcpuCount must be a power of 2": bool(self.cpu and self.cpu.vcpu_count & (self.cpu.vcpu_count - 1)),
        }
        for text, applies in wrong.items():
            if applies:
                raise Problem(400, text)

    def _mounts(self, template: Template | None) -> dict[str, Any]:
        if self.mounts is not None:
            return self.mounts.json()
        return dict(template.mounts) if template and self.gpu else {}

    def _injected(self, template: Template | None, account: Account) -> dict[str, str]:
        """Variables that the service sets; the user's win over them, and the pod does not show them."""
        ssh = self.start_ssh if self.start_ssh is not None else bool(template and template.start_ssh)
        jupyter = self.start_jupyter if self.start_jupyter is not None else bool(template and template.start_jupyter)
        keys = {"PUBLIC_KEY": "\n".join(account.ssh_keys)} if ssh and account.ssh_keys else {}
        return {**keys, "JUPYTER_PASSWORD": secrets.token_hex(8)} if jupyter else keys


class PatchPod(_Container):
    """`PATCH /v2/pods/{id}`: only what is given changes; a container that runs keeps what it was started with."""

    name: Name | None = None
    locked: bool | None = None

    def changed(self, request: PodRequest, account: Account) -> PodRequest:
        """The pod's new request; 400 for mounts that it cannot get any more, 404 for an unknown template."""
        template = None if self.template_id is None else pod_template(account, self.template_id)
        settings = self.settings(template)
        if settings.get("registry") is not None:
            account.registry(settings["registry"])
        if self.name is not None:
            settings["name"] = self.name
        if self.mounts is not None and self.mounts.model_fields_set:
            settings["mounts"] = _changed_mounts(request.mounts or {}, self.mounts)
        return replace(request, **settings)


class Action(Body):
    """`POST /v2/pods/{id}/action`."""

    action: Literal["start", "stop", "restart", "terminate"]


class CreateSecret(Body):
    """`POST /v2/account/secrets`."""

    name: SecretName
    value: SecretValue
    description: str = ""


class PatchSecret(Body):
    """`PATCH /v2/account/secrets/{id}`."""

    value: SecretValue | None = None
    description: str | None = None


def pod_template(account: Account, template_id: str) -> Template:
    """A template for pods: 404 when there is none, 422 for one of serverless workers."""
    template = account.template(template_id)
    if template.serverless:
        raise Problem(422, "a pod takes no serverless template", errors=["templateId: is a serverless template"])
    return template


def _of_template(template: Template) -> dict[str, Any]:
    settings = {
        "image": template.image,
        "disk_gb": template.disk_gb,
        "env": dict(template.env),
        "ports": template.ports,
        "registry": template.registry,
    }
    return {**settings, "args": template.args} if template.args else settings


def _centers(wanted: Iterable[str], mounts: dict[str, Any], account: Account) -> tuple[str, ...]:
    """Where the pod may go: a network volume binds it to its own data centre."""
    wanted = tuple(wanted)
    if "network" not in mounts:
        return wanted
    volume = account.volume(mounts["network"][0]["volumeId"])
    if wanted and volume.data_center_id not in wanted:
        raise Problem(400, f"network volume {volume.id} is in {volume.data_center_id}, which is not in dataCenterIds")
    return (volume.data_center_id,)


def _changed_mounts(old: dict[str, Any], wanted: Mounts) -> dict[str, Any]:
    new = wanted.json()
    if wanted.network == []:
        raise Problem(400, "mounts cannot be cleared")
    if set(new) - set(old):
        raise Problem(400, "the kind of mount is fixed when the pod is created")
    if "network" in new and new["network"][0]["volumeId"] != old["network"][0]["volumeId"]:
        raise Problem(400, "the volumeId of a mount cannot be changed")
    return {**old, **new}


def pod_json(pod: Pod) -> dict[str, Any]:
    """A pod as the service shows it."""
    request = pod.request
    charged = pod.status not in (Status.EXITED, Status.TERMINATED)
    return {
        "id": pod.id,
        "name": pod.name,
        "status": pod.status.value,
        "actions": list(pod.actions()),
        "image": request.image,
        "args": request.args or "",
        "cmd": list(request.cmd) if request.cmd is not None else None,
        "entrypoint": list(request.entrypoint) if request.entrypoint is not None else None,
        "disk": request.disk_gb,
        "mounts": request.mounts or {},
        "ports": list(request.ports),
        "env": dict(request.env),
        "registry": request.registry,
        **_hardware(request),
        "cloud": request.cloud,
        "dataCenterId": pod.data_center_id,
        "cudaVersion": pod.cuda_version if request.gpu else None,
        "ssh": {"proxy": None, "direct": _ssh(pod)},
        "template": None,
        "cost": pod.price_usd_per_hr if charged else 0.0,
        "locked": pod.locked,
        "runtime": _runtime(pod),
        "globalNetworking": _global_networking(pod),
        "createdAt": rfc3339(pod.created_at_s),
        "startedAt": None if pod.running_since_s is None else rfc3339(pod.running_since_s),
    }


def _global_networking(pod: Pod) -> dict[str, Any]:
    if not pod.request.global_networking:
        return {"enabled": False}
    high, low = divmod(pod.serial % 65_536, 256)
    return {"enabled": True, "ip": f"10.65.{high}.{low}", "internalDns": f"{pod.id}.runpod.internal"}


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
