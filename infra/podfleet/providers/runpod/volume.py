"""`Volume`: a network volume for models. Shell over `volumes.VolumeCore`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from podfleet.errors import ConfigError
from podfleet.providers.runpod import wire_account
from podfleet.providers.runpod.shell import Props, Shell, changed
from podfleet.providers.runpod.volumes import VolumeWish, shrink_problem

IDENTITY = ("name", "dataCenterId", "type")


@dataclass(frozen=True, slots=True)
class VolumeArgs:
    """Another data centre or type is another volume; the size only grows."""

    name: str
    size_gb: int
    data_center_id: str
    type: str = "STANDARD"


class VolumeProvider(Shell):
    """This path is in every state: never move it.

    A shrink is refused by the preview, and before anything else is done: Guard and the pods wait for the volume.
    """

    def check(self, olds: Props, news: Props) -> CheckResult:
        same = bool(olds) and not changed(olds, news, *IDENTITY)
        problem = shrink_problem(olds["sizeGb"], news["sizeGb"]) if same else ""
        return CheckResult(news, [CheckFailure("sizeGb", problem)] if problem else [])

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        """Raises ConfigError where somebody has grown the volume by hand beyond the config."""
        other = changed(olds, news, *IDENTITY)
        if not other and (problem := shrink_problem(olds["sizeGb"], news["sizeGb"])):
            raise ConfigError(problem)
        changes = bool(other or changed(olds, news, "sizeGb"))
        return DiffResult(changes=changes, replaces=other, delete_before_replace=False)

    def create(self, props: Props) -> CreateResult:
        volume = self.core.volumes.create(_wish(props))
        return CreateResult(volume.id, {**props, "sizeGb": volume.size_gb})

    def read(self, id_: str, props: Props) -> ReadResult:
        volume = self.core.volumes.read(id_)
        return ReadResult(id_, _outputs(volume, props)) if volume else ReadResult("", {})

    def update(self, id_: str, _olds: Props, news: Props) -> UpdateResult:
        volume = self.core.volumes.grow(id_, _wish(news))
        return UpdateResult({**news, "sizeGb": volume.size_gb})

    def delete(self, id_: str, _props: Props) -> None:
        self.core.volumes.delete(id_)


class Volume(Resource, module="runpod", name="Volume"):
    """One network volume; pods that mount it depend on it, and so it is deleted after them."""

    def __init__(self, resource_name: str, args: VolumeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "name": args.name,
            "sizeGb": args.size_gb,
            "dataCenterId": args.data_center_id,
            "type": args.type,
        }
        super().__init__(VolumeProvider(), resource_name, props, opts)


def _wish(props: Props) -> VolumeWish:
    return VolumeWish(props["name"], int(props["sizeGb"]), props["dataCenterId"], props["type"])


def _outputs(volume: wire_account.Volume, props: Props) -> Props:
    """As it is; what the API does not say stays as it was."""
    return {
        "name": volume.name or props["name"],
        "sizeGb": volume.size_gb,
        "dataCenterId": volume.data_center_id or props["dataCenterId"],
        "type": volume.type or props["type"],
    }
