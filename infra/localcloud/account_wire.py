"""The JSON of registries, network volumes, templates and SSH keys. Called by `account_api`.

PURE.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from localcloud.account import Registry, Template, Volume
from localcloud.wire_base import WHOLE, Body, CudaVersion, Env, Name, PersistentMount, PortText, Positive

MIN_VOLUME_GB, MAX_VOLUME_GB = 10, 4096
VolumeSize = Annotated[int, Field(ge=MIN_VOLUME_GB, le=MAX_VOLUME_GB), WHOLE]
VolumeKind = Literal["STANDARD", "HIGH_PERFORMANCE"]
SshKey = Annotated[
    str, StringConstraints(strict=True, pattern=r"^(ssh|ecdsa|sk)-[^\s]+ [^\s]+([ \t][^\n\r]*)?$", max_length=16_384)
]
_COLUMNS = {
    "disk": "disk_gb",
    "startSsh": "start_ssh",
    "startJupyter": "start_jupyter",
    "allowedCudaVersions": "allowed_cuda_versions",
}


class CreateRegistry(Body):
    """`POST /v2/registries`."""

    name: Name
    username: Name
    password: Name


def registry_json(registry: Registry) -> dict[str, Any]:
    """A registry's name card; the login is never shown."""
    return {"id": registry.id, "name": registry.name}


class CreateVolume(Body):
    """`POST /v2/network-volumes`."""

    name: Name
    size: VolumeSize
    data_center: Name = Field(alias="dataCenter")
    type: VolumeKind | None = None


class PatchVolume(Body):
    """`PATCH /v2/network-volumes/{id}`; data centre and type stay as they are."""

    name: Name | None = None
    size: VolumeSize | None = None

    @model_validator(mode="after")
    def _something(self) -> "PatchVolume":
        if not self.model_fields_set:
            raise ValueError("at least one of name and size is required")
        return self


def volume_json(volume: Volume) -> dict[str, Any]:
    """A network volume."""
    return {
        "id": volume.id,
        "name": volume.name,
        "size": volume.size_gb,
        "dataCenter": volume.data_center_id,
        "type": volume.type,
    }


class PutSshKeys(Body):
    """`PUT /v2/account/ssh-keys`: the whole set."""

    keys: list[SshKey]


class TemplateMounts(Body):
    """`mounts` of a template."""

    persistent: PersistentMount | None = None


class _TemplateSettings(Body):
    nullable: ClassVar[tuple[str, ...]] = ("registry",)
    args: str | None = None
    disk: Positive | None = None
    env: Env | None = None
    ports: list[PortText] | None = None
    registry: str | None = None
    mounts: TemplateMounts | None = None
    serverless: bool | None = None
    public: bool | None = None
    category: Literal["CPU", "NVIDIA", "AMD"] | None = None
    start_ssh: bool | None = Field(default=None, alias="startSsh")
    start_jupyter: bool | None = Field(default=None, alias="startJupyter")
    allowed_cuda_versions: list[CudaVersion] | None = Field(default=None, alias="allowedCudaVersions")

    def columns(self) -> dict[str, Any]:
        """What was given, by the names of `Template`."""
        given = self.model_dump(exclude_unset=True, by_alias=True)
        if "mounts" in given:
            given["mounts"] = {key: value for key, value in given["mounts"].items() if value is not None}
        for key in ("ports", "allowedCudaVersions"):
            if key in given:
                given[key] = tuple(given[key])
        return {_COLUMNS.get(key, key): value for key, value in given.items()}


class CreateTemplate(_TemplateSettings):
    """`POST /v2/templates`."""

    name: Name
    image: Name

    def to_template(self) -> Template:
        """The template, still without an id."""
        return Template(**{"id": "", **self.columns()})


class PatchTemplate(_TemplateSettings):
    """`PATCH /v2/templates/{id}`."""

    name: Name | None = None
    image: Name | None = None


def template_json(template: Template) -> dict[str, Any]:
    """A template with all its settings."""
    return {
        "id": template.id,
        "name": template.name,
        "image": template.image,
        "args": template.args,
        "disk": template.disk_gb,
        "mounts": template.mounts,
        "ports": list(template.ports),
        "env": dict(template.env),
        "registry": template.registry,
        "serverless": template.serverless,
        "public": template.public,
        "category": template.category,
        "startSsh": template.start_ssh,
        "startJupyter": template.start_jupyter,
        "allowedCudaVersions": list(template.allowed_cuda_versions),
    }
