"""How long the account's money lasts, in one line. Called by the program for the plan, and by `podfleet status`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from podfleet.config import NAMESPACE
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.wire_account import Balance

LONG_HR = 48.0
HOURS_PER_DAY = 24.0


@dataclass(frozen=True, slots=True)
class BalanceLine:
    """The text, and whether it is a warning. `hours` is None where nothing runs."""

    text: str
    low: bool = False
    hours: float | None = None

    def __str__(self) -> str:
        return self.text


def balance_line(
    balance: Balance | None, *, now_usd_per_hr: float, then_usd_per_hr: float, low_hours: float
) -> BalanceLine | None:
    """`balance $3.10, lasts 3.9 h at $0.80/h`; None where the balance cannot be read.

    Money is the account's: what else runs in it goes on beside the fleet, which goes from `now` to `then` (the same
    where nothing is planned). `low_hours` 0: never a warning.
    """
    if balance is None:
        return None
    others_usd_per_hr = max(0.0, balance.spend_usd_per_hr - now_usd_per_hr)
    usd_per_hr = others_usd_per_hr + then_usd_per_hr
    text = f"balance ${balance.usd:.2f}"
    if usd_per_hr <= 0:
        low = bool(low_hours) and balance.usd <= 0
        return BalanceLine(f"{text}: RunPod rents nothing" if low else text, low)
    hours = max(0.0, balance.usd / usd_per_hr)
    text += f", lasts {_hours(hours)} at ${usd_per_hr:.2f}/h"
    text += f" (${others_usd_per_hr:.2f}/h of it by others)" if others_usd_per_hr >= 0.005 else ""
    if hours >= low_hours:
        return BalanceLine(text, hours=hours)
    told = f"{NAMESPACE}:lowBalanceHours is {low_hours:g}; at $0 RunPod ends all pods: top up, or ask for fewer"
    return BalanceLine(f"{text}; {told}", low=True, hours=hours)


def read_balance(access: Access) -> Balance | None:
    """None on any trouble."""
    with closing(RunpodClient(access)) as client:
        return client.balance()


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours < LONG_HR else f"{hours / HOURS_PER_DAY:.0f} days"
