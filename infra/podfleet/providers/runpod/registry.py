"""`Registry`: a login for a private image registry. Shell over `registries.RegistryCore`.

User and password are encrypted in the state, as inputs, and nowhere else: another login has another name, so nothing
has to be compared with the old one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource

from podfleet.providers.runpod.shell import Props, Shell, changed


@dataclass(frozen=True, slots=True)
class RegistryArgs:
    """Pods refer to it by id, and keep theirs: a new login touches no running pod."""

    name: str
    username: pulumi.Input[str] = field(repr=False)
    password: pulumi.Input[str] = field(repr=False)


class RegistryProvider(Shell):
    """This path is in every state: never move it. The new login is made before the old one goes."""

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        other = changed(olds, news, "name")
        return DiffResult(changes=bool(other), replaces=other, delete_before_replace=False)

    def create(self, props: Props) -> CreateResult:
        registry_id = self.core.registries.create(props["name"], props["username"], props["password"])
        return CreateResult(registry_id, {"name": props["name"]})

    def read(self, id_: str, props: Props) -> ReadResult:
        found = self.core.registries.exists(id_, props["name"])
        return ReadResult(id_, {"name": props["name"]}) if found else ReadResult("", {})

    def delete(self, id_: str, _props: Props) -> None:
        self.core.registries.delete(id_)


class Registry(Resource, module="runpod", name="Registry"):
    """One registry login."""

    def __init__(self, resource_name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "name": args.name,
            "username": pulumi.Output.secret(args.username),
            "password": pulumi.Output.secret(args.password),
        }
        hidden = pulumi.ResourceOptions(additional_secret_outputs=["username", "password"])
        super().__init__(RegistryProvider(), resource_name, props, pulumi.ResourceOptions.merge(hidden, opts))
