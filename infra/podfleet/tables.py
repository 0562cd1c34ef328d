"""Tables for people, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from podfleet.overview import Money, Overview, Row
from podfleet.providers.runpod.balance import balance_line
from podfleet.spans import span

COLUMNS = ("slot", "id", "status", "node", "gpu", "place", "$/h", "age", "left")
WIDTH = 160  # where there is no terminal to ask


def show(seen: Overview, *, low_balance_hours: float) -> None:
    """One screen: pods, what differs, money, why the size is as it is."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if seen.pods:
        table = Table(*COLUMNS, box=None)
        for row in seen.pods:
            table.add_row(*_cells(row))
        console.print(table)
    for line in lines(seen, low_balance_hours=low_balance_hours):
        console.print(line, markup=False)


def lines(seen: Overview, *, low_balance_hours: float) -> Iterator[str]:
    """What stands below the table."""
    yield f"{len(seen.pods)} of {len(seen.wanted_slots)} pods, {_money(seen.money)}"
    yield from seen.drift.lines()
    if seen.queue_trouble:
        yield f"queue does not answer: {seen.queue_trouble}"
    usd = seen.money.usd_per_hr
    balance = balance_line(seen.money.balance, now_usd_per_hr=usd, then_usd_per_hr=usd, low_hours=low_balance_hours)
    if balance:  # absent where nobody says how much there is
        yield f"LOW: {balance}" if balance.low else str(balance)
    if seen.decision:
        yield f"last decision: {seen.decision}"


def _cells(row: Row) -> tuple[str, ...]:
    place = " ".join(part for part in (row.data_center_id, row.cloud.lower()) if part)
    left_s = row.lifetime_left_s
    left = "no end" if left_s is None else span(left_s) if left_s > 0 else f"over by {span(-left_s)}"
    age = span(row.age_s) if row.created_at_s else "?"
    return row.slot, row.id, row.status, row.node, row.gpu, place, f"{row.usd_per_hr:.2f}", age, left


def _money(money: Money) -> str:
    bill = "" if money.bill_read else " at least (the bill cannot be read)"
    return f"${money.usd_per_hr:.2f}/h now, ${money.usd_last_24_h:.2f} in the last 24 h{bill}"
