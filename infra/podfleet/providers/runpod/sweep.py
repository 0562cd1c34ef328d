"""`Sweep`: the resource after all pods. Shell over `fleet.SweepCore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, UpdateResult

from podfleet.providers.runpod.fleet import wish_of, wish_problems
from podfleet.providers.runpod.guard import written_list
from podfleet.providers.runpod.shell import Props, Shell, changed


@dataclass(frozen=True, slots=True)
class SweepArgs:
    """`pods` are the ids of the pods in the state and have no default; `generation` is Guard's output."""

    uid: str
    prefix: str
    wanted: Sequence[str]
    pods: Sequence[pulumi.Input[str]]
    generation: pulumi.Input[str]


class SweepProvider(Shell):
    """This path is in every state: never move it."""

    def check(self, _olds: Props, news: Props) -> CheckResult:
        problems = wish_problems(news)
        if "pods" not in news:
            problems.append(("pods", "must be the list of the pods' ids"))
        return CheckResult(news, [CheckFailure(key, reason) for key, reason in problems])

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        return DiffResult(changes=bool(changed(olds, news, "uid", "prefix", "wanted", "pods", "generation")))

    def create(self, props: Props) -> CreateResult:
        self._sweep(props, first=True)
        return CreateResult(f"sweep-{props['uid']}", props)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        self._sweep(news)
        return UpdateResult(news)

    def _sweep(self, props: Props, *, first: bool = False) -> None:
        self.core.sweep.sweep(wish_of(props), pods=frozenset(props["pods"]), first=first)


class Sweep(Resource, module="runpod", name="Sweep"):
    """Depends on Guard and all Pods. Its own delete ends nothing: Guard's does."""

    def __init__(self, resource_name: str, args: SweepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props: Props = {
            "uid": args.uid,
            "prefix": args.prefix,
            "wanted": written_list(args.wanted),
            "pods": list(args.pods),
            "generation": args.generation,
        }
        super().__init__(SweepProvider(), resource_name, props, opts)
