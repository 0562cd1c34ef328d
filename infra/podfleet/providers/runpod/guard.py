"""`Guard`: the resource before all pods. Shell over `fleet.GuardCore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, UpdateResult

from podfleet.errors import ConfigError
from podfleet.providers.runpod.fleet import wish_of, wish_problems
from podfleet.providers.runpod.shell import Props, Shell, changed

IDENTITY = ("uid", "prefix")


@dataclass(frozen=True, slots=True)
class GuardArgs:
    """`wanted` is a written list of remote names, never an Output; `[]` ends all. `adopt` takes over a lost fleet.

    With `expect_generation` an update is refused when somebody else has changed the fleet since.
    """

    uid: str
    prefix: str
    wanted: Sequence[str]
    adopt: bool = False
    expect_generation: str | None = None


class GuardProvider(Shell):
    """This path is in every state: never move it."""

    def check(self, _olds: Props, news: Props) -> CheckResult:
        return CheckResult(news, [CheckFailure(key, reason) for key, reason in wish_problems(news)])

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        other = changed(olds, news, *IDENTITY)
        changes = bool(other or changed(olds, news, "wanted"))
        return DiffResult(changes=changes, replaces=other, delete_before_replace=True)

    def create(self, props: Props) -> CreateResult:
        wish = wish_of(props)
        generation = self.core.guard.create(wish, adopt=bool(props.get("adopt")))
        return CreateResult(f"guard-{wish.uid}", {**props, "generation": generation})

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        generation = self.core.guard.update(
            wish_of(news), generation=olds.get("generation") or "", expected=news.get("expectGeneration")
        )
        return UpdateResult({**news, "generation": generation})

    def delete(self, _id: str, props: Props) -> None:
        self.core.guard.delete(props["uid"], props["prefix"])


class Guard(Resource, module="runpod", name="Guard"):
    """Every Pod depends on it: its update comes before them and its delete after them."""

    generation: pulumi.Output[str]

    def __init__(self, resource_name: str, args: GuardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "uid": args.uid,
            "prefix": args.prefix,
            "wanted": written_list(args.wanted),
            "adopt": args.adopt,
            "expectGeneration": args.expect_generation,
            "generation": None,
        }
        super().__init__(GuardProvider(), resource_name, props, opts)


def written_list(wanted: object) -> list[str]:
    """A plain list of names, known now. Raises ConfigError: what is unknown in a preview must not read as `[]`."""
    if not isinstance(wanted, list | tuple) or not all(isinstance(name, str) for name in wanted):
        raise ConfigError("wanted: must be a plain list of remote names, not an Output; write [] to end all pods")
    return list(wanted)
