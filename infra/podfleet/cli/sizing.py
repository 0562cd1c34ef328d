"""Commands that set the size of the fleet, by hand or from the queue, and say why it is so."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.cli.shared import StackName, access_of, cloud_of, healed, ready
from podfleet.errors import ConfigError
from podfleet.workspace import find

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig
    from podfleet.quotes import Quote
    from podfleet.workspace import Workspace


def scale(stack: StackName, pods: Annotated[int, typer.Argument(min=0)]) -> None:
    """Set the size by hand; fewer pods: idle ones go first, as the queue tells them."""
    from podfleet.config import slots_for

    workspace = ready(stack)
    config = workspace.config()
    if pods > config.max_pods:
        raise ConfigError([f"podfleet:pods: {pods} is more than podfleet:maxPods ({config.max_pods})"])
    choice = 0 < pods < len(config.wanted_slots)  # else there is none: a queue that is down must not block a `scale 0`
    slots = _chosen_slots(workspace, pods) if choice else slots_for(pods, config.wanted_slots)
    with healed(workspace) as deployment:
        deployment.resize(slots, decision=f"{len(config.wanted_slots)} → {pods} pods: set by hand")


def reconcile(
    stack: StackName,
    once: Annotated[bool, typer.Option("--once", help="one round, for cron and CI")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print decision and price, change nothing")] = False,
) -> None:
    """Size the fleet from the queue: observe, decide, write the stack's config, `up`."""
    if once == dry_run:
        raise ConfigError(["reconcile: give --once or --dry-run"])
    from podfleet.reconciler import tick
    from podfleet.signals.queue import QueueSignal

    workspace = find(stack, Path.cwd()) if dry_run else ready(stack)
    config = workspace.config()
    engine = nullcontext() if dry_run else healed(workspace)
    with engine as deployment, cloud_of(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        decision = tick(
            config, prefix=workspace.prefix, deployment=deployment, cloud=cloud, queue=queue, now_s=time.time()
        )
    print(decision.reason)
    if dry_run:
        print(f"price: {_price(workspace, config, decision.slots)}")


def why(stack: StackName) -> None:
    """Explain the size of the fleet in one sentence."""
    config = find(stack, Path.cwd()).config()
    print(config.decision or f"{config.pods} pods: podfleet:pods says so; the reconciler has not decided yet")


def _price(workspace: Workspace, config: PodfleetConfig, slots: tuple[str, ...]) -> Quote:
    from podfleet.providers.runpod.prices import price_plan

    return price_plan(config, slots, prefix=workspace.prefix, access=access_of(workspace, config))


def _chosen_slots(workspace: Workspace, pods: int) -> tuple[str, ...]:
    from podfleet.reconciler import observe
    from podfleet.scaling import idle_first
    from podfleet.signals.queue import QueueSignal

    config = workspace.config()
    with cloud_of(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        seen = observe(config, prefix=workspace.prefix, cloud=cloud, queue=queue, now_s=time.time())
    return idle_first(pods, seen.fleet)
