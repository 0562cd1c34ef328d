"""`Secret`: a RunPod account secret with a fixed name. Shell over `secrets.SecretCore`.

The value is encrypted in the state, inputs and outputs (the old one is what `diff` compares with), and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from podfleet.providers.runpod.shell import Props, Shell, changed


@dataclass(frozen=True, slots=True)
class SecretArgs:
    """Pods refer to it by name (`{{ RUNPOD_SECRET_<name> }}`): a new value touches no pod."""

    name: str
    value: pulumi.Input[str] = field(repr=False)
    description: str = ""


class SecretProvider(Shell):
    """This path is in every state: never move it."""

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        other = changed(olds, news, "name")
        return DiffResult(changes=bool(other or changed(olds, news, "value")), replaces=other)

    def create(self, props: Props) -> CreateResult:
        secret_id = self.core.secrets.put(props["name"], props["value"], props.get("description") or "")
        return CreateResult(secret_id, dict(props))

    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, dict(props)) if self.core.secrets.exists(id_, props["name"]) else ReadResult("", {})

    def update(self, id_: str, _olds: Props, news: Props) -> UpdateResult:
        self.core.secrets.update(id_, news["name"], news["value"], news.get("description") or "")
        return UpdateResult(dict(news))

    def delete(self, id_: str, _props: Props) -> None:
        self.core.secrets.delete(id_)


class Secret(Resource, module="runpod", name="Secret"):
    """One account secret."""

    def __init__(self, resource_name: str, args: SecretArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "name": args.name,
            "value": pulumi.Output.secret(args.value),
            "description": args.description,
        }
        hidden = pulumi.ResourceOptions(additional_secret_outputs=["value"])
        super().__init__(SecretProvider(), resource_name, props, pulumi.ResourceOptions.merge(hidden, opts))
