"""What a plan has to say besides its price: how long the money lasts, and wishes that cannot be met."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pulumi

from podfleet.components.program import Stack
from podfleet.providers.runpod.balance import balance_line, read_balance
from podfleet.providers.runpod.capacity import read_capacity_note
from podfleet.providers.runpod.settings import access_from
from podfleet.quotes import Quote


@dataclass(frozen=True, slots=True)
class Notice:
    """One line under the plan."""

    text: str
    warning: bool = False

    def show(self, resource: pulumi.Resource) -> None:
        (pulumi.log.warn if self.warning else pulumi.log.info)(self.text, resource)


def notices_of(stack: Stack, price: Quote) -> tuple[Notice, ...]:
    """Read now; none of them stops anything."""
    config = stack.config
    access = access_from(os.environ, config.runpod_url, config.uid)
    found = []
    then = price.now_usd_per_hr if price.then_usd_per_hr is None else price.then_usd_per_hr
    line = balance_line(
        read_balance(access),
        now_usd_per_hr=price.now_usd_per_hr,
        then_usd_per_hr=then,
        low_hours=config.low_balance_hours,
    )
    if line:
        found.append(Notice(line.text, line.low))
    if note := read_capacity_note(config, access):
        found.append(Notice(note, warning=True))
    return tuple(found)
