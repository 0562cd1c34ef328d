"""The fleet, from top to bottom. The parts are in `podfleet.components`; what is wanted is in `stacks/`."""

from __future__ import annotations

import sys

import pulumi

from podfleet.components.account import Account
from podfleet.components.fleet import Fleet, price_of
from podfleet.components.notices import notices_of
from podfleet.components.pod import Parts
from podfleet.components.program import REPORTED, load, report
from podfleet.components.tailnet import Tailnet
from podfleet.errors import PodfleetError

try:
    stack = load()
    price = price_of(stack)
    notices = notices_of(stack, price)
    account = Account("account", stack)
    tailnet = Tailnet("tailnet", stack, after=account.holdings)
    fleet = Fleet("fleet", stack, price=price, notices=notices, parts=Parts(account, tailnet))
except PodfleetError as error:
    report(error)
    sys.exit(REPORTED)

pulumi.export("uid", stack.config.uid)
pulumi.export("slots", fleet.slots)
pulumi.export("podIds", fleet.pod_ids)
pulumi.export("addresses", fleet.addresses)
pulumi.export("placements", fleet.placements)
pulumi.export("usdPerHour", fleet.usd_per_hour)
pulumi.export("usdPerHourAtMost", fleet.usd_per_hour_at_most)
pulumi.export("generation", fleet.generation)
pulumi.export("decision", stack.config.decision)
