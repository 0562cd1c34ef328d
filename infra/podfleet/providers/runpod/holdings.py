"""`Holdings`: the resource before all secrets, registry logins and volumes. Shell over `leftovers.LeftoverCore`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource

from podfleet.providers.runpod.shell import Props, Shell, changed

IDENTITY = ("uid", "prefix")


@dataclass(frozen=True, slots=True)
class HoldingsArgs:
    """Whose things: names that begin with the prefix and carry the uid's hash."""

    uid: str
    prefix: str


class HoldingsProvider(Shell):
    """This path is in every state: never move it. Its create does nothing: nothing of ours can be there before it."""

    def check(self, _olds: Props, news: Props) -> CheckResult:
        return CheckResult(news, [CheckFailure(key, "must not be empty") for key in IDENTITY if not news.get(key)])

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        other = changed(olds, news, *IDENTITY)
        return DiffResult(changes=bool(other), replaces=other, delete_before_replace=False)

    def create(self, props: Props) -> CreateResult:
        return CreateResult(f"holdings-{props['uid']}", dict(props))

    def delete(self, _id: str, props: Props) -> None:
        self.core.leftovers.remove(props["uid"], props["prefix"])


class Holdings(Resource, module="runpod", name="Holdings"):
    """Created first and deleted last: its delete removes what an interrupted create has left in the account."""

    def __init__(self, resource_name: str, args: HoldingsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(HoldingsProvider(), resource_name, {"uid": args.uid, "prefix": args.prefix}, opts)
