"""The named slots between Guard and Sweep, with the price in the plan."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pulumi

from podfleet.components.notices import Notice
from podfleet.components.pod import FleetPod, Parts
from podfleet.components.program import Stack
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.guard import Guard, GuardArgs
from podfleet.providers.runpod.prices import price_plan
from podfleet.providers.runpod.settings import access_from
from podfleet.providers.runpod.sweep import Sweep, SweepArgs
from podfleet.quotes import Quote, require_affordable


class Fleet(pulumi.ComponentResource):
    """Guard → pods → Sweep. Guard comes before every pod and is deleted after them; `parts` come before Guard."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        *,
        price: Quote,
        parts: Parts,
        notices: Sequence[Notice] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("podfleet:index:Fleet", name, None, opts)
        config, spec = stack.config, pod_spec(stack.config)
        self.slots = list(config.wanted_slots)
        wanted = [remote_name(stack.prefix, slot, config.uid, spec) for slot in self.slots]
        pulumi.log.info(f"price: {price}", self)
        for notice in notices:
            notice.show(self)

        guard = Guard(
            "guard",
            GuardArgs(uid=config.uid, prefix=stack.prefix, wanted=wanted, adopt=config.adopt),
            pulumi.ResourceOptions(parent=self, depends_on=parts.resources),
        )
        child = pulumi.ResourceOptions(parent=self)
        slots = {slot: FleetPod(slot, stack, parts=parts, after=guard, opts=child) for slot in self.slots}
        pods = [slot.pod for slot in slots.values()]
        Sweep(
            "sweep",
            SweepArgs(
                uid=config.uid,
                prefix=stack.prefix,
                wanted=wanted,
                pods=[pod.id for pod in pods],
                generation=guard.generation,
            ),
            pulumi.ResourceOptions(parent=self, depends_on=[guard, *pods]),
        )
        self.generation = guard.generation
        self.pod_ids = {slot: part.pod.id for slot, part in slots.items()}
        self.addresses = {slot: part.address for slot, part in slots.items()}
        self.placements = {
            slot: {"candidate": part.pod.candidate, "rejected": part.pod.rejected} for slot, part in slots.items()
        }
        self.usd_per_hour = pulumi.Output.all(*(pod.cost_usd_per_hr for pod in pods)).apply(
            lambda prices: round(sum(prices), 4)
        )
        self.usd_per_hour_at_most = price.most_usd_per_hr
        self.register_outputs({"slots": self.slots})


def price_of(stack: Stack) -> Quote:
    """What the plan costs, read before anything is made: a wrong key, another stack's shell, or a plan that is dearer
    than `maxUsdPerHour` stops here.
    """
    config = stack.config
    access = access_from(os.environ, config.runpod_url, config.uid)
    price = price_plan(config, config.wanted_slots, prefix=stack.prefix, access=access)
    require_affordable(price, config.max_usd_per_hour)
    return price
