"""How a sweep's report looks: a table for people, an object for scripts."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from podfleet.sweeping.sweeper import Report

COLUMNS = ("what", "name", "id", "reason", "$/h", "by tomorrow", "")
WIDTH = 200  # where there is no terminal to ask


def report_object(report: Report) -> dict[str, Any]:
    """For `--json`."""
    found = [
        {
            "kind": each.kind,
            "id": each.id,
            "name": each.name,
            "reason": each.reason,
            "orphan": each.orphan,
            "usd_per_hr": each.usd_per_hr,
            "usd_by_tomorrow": round(each.usd_by_tomorrow, 2),
            "ended": each.ended,
        }
        for each in report.findings
    ]
    return {"found": found, "notes": list(report.notes)}


def show_report(report: Report) -> None:
    """The table, its sum, and what could not be looked at."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if report.findings:
        table = Table(*COLUMNS, box=None)
        for each in report.findings:
            prices = (f"{each.usd_per_hr:.2f}", f"{each.usd_by_tomorrow:.2f}") if each.kind == "pod" else ("", "")
            what_became = "ended" if each.ended else "" if each.orphan else "shown only"
            table.add_row(each.kind, each.name, each.id, each.reason, *prices, what_became)
        console.print(table)
    for note in report.notes:
        console.print(note, highlight=False)
    console.print(_sum(report), highlight=False)


def _sum(report: Report) -> str:
    left = [each for each in report.findings if not each.ended]
    ended = len(report.findings) - len(left)
    if not report.findings:
        return "nothing found"
    usd_per_hr = sum(each.usd_per_hr for each in left)
    text = f"{len(report.findings)} found, {ended} ended"
    if usd_per_hr:
        text += f"; the rest costs ${usd_per_hr:.2f}/h, ${sum(each.usd_by_tomorrow for each in left):.2f} by tomorrow"
    return text
