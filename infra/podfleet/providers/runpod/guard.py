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
    """`wanted` is a written list of remote names, never an Output; `[]` ends all. `adopt` takes over a lost fleet."""

    uid: str
    prefix: str
    wanted: Sequence[str]
    adopt: bool = False


class GuardProvider(Shell):
    """This path is in every state: never move it.

    An `up` that was told which generation its caller saw (the reconciler's) is refused when somebody else has changed
    the fleet since. It is told by the environment, so that it is no input and a person's `up` is never refused.
    """

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
            wish_of(news), generation=olds.get("generation") or "", expected=self._settings.expect_generation
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
            "generation": None,
        }
        super().__init__(GuardProvider(), resource_name, props, opts)


def written_list(wanted: object) -> list[str]:
    """A plain list of names, known now. Raises ConfigError: what is unknown in a preview must not read as `[]`."""
    if not isinstance(wanted, list | tuple) or not all(isinstance(name, str) for name in wanted):
        raise ConfigError("wanted: must be a plain list of remote names, not an Output; write [] to end all pods")
    return list(wanted)
