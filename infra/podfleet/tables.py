"""Tables for people, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from podfleet.providers.runpod.census import is_ours

if TYPE_CHECKING:
    from podfleet.providers.runpod.wire import PodView

COLUMNS = ("name", "id", "status", "gpu", "$/h", "age")
WIDTH = 160  # where there is no terminal to ask


def fleet_rows(pods: Iterable[PodView], *, uid: str, prefix: str) -> list[dict[str, Any]]:
    """One row per pod of ours."""
    return [
        {
            "name": pod.name,
            "id": pod.id,
            "status": pod.status,
            "gpu": pod.gpu,
            "usd_per_hr": pod.cost_usd_per_hr,
            "created_at_s": pod.created_at_s,
        }
        for pod in pods
        if is_ours(pod, uid=uid, prefix=prefix)
    ]


def show(rows: list[dict[str, Any]], *, now_s: float) -> None:
    """The fleet as a table, with its price."""
    table = Table(*COLUMNS, box=None)
    for row in rows:
        age_min = (now_s - row["created_at_s"]) / 60
        table.add_row(
            row["name"], row["id"], row["status"], row["gpu"], f"{row['usd_per_hr']:.2f}", f"{age_min:.0f} min"
        )
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    total = sum(row["usd_per_hr"] for row in rows)
    console.print(f"{len(rows)} pods, ${total:.2f}/h")
