"""The command that ends what nobody owns."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.cli.shared import AsJson, StackName, environment_of, tell
from podfleet.errors import ProviderError
from podfleet.workspace import find

if TYPE_CHECKING:
    from podfleet.sweeping.sweeper import Report
    from podfleet.workspace import Workspace

SECONDS_PER_MINUTE = 60.0


def sweep(
    stack: StackName,
    yes: Annotated[
        bool, typer.Option("--yes", help="end what two looks, some minutes apart, both call an orphan")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="again and again, until Ctrl-C")] = False,
    every_minutes: Annotated[float, typer.Option(help="with --watch: pause between two rounds", min=0)] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Find pods and remains of this stack that nobody owns. Exit code 3: something was found and not ended.

    Works without the state, without an engine, and from cron on another machine with the stack's file.
    """
    workspace = find(stack, Path.cwd())
    code = 0
    try:
        while True:
            code = _round(workspace, end=yes, as_json=as_json, watch=watch)
            if not watch:
                break
            time.sleep(every_minutes * SECONDS_PER_MINUTE)
    except KeyboardInterrupt:
        tell("stopped")
    raise typer.Exit(code)


def _round(workspace: Workspace, *, end: bool, as_json: bool, watch: bool) -> int:
    from podfleet.sweeping.sweeper import NOT_ENDED, sweeper
    from podfleet.sweeping.table import report_object, show_report

    try:
        with sweeper(workspace, environment_of(workspace), show=tell) as each:
            report: Report = each.sweep(end=end)
    except ProviderError as error:
        if not watch:
            raise
        tell(f"{error}; the next round looks again")
        return NOT_ENDED
    if as_json:
        print(json.dumps(report_object(report)), flush=True)
    else:
        show_report(report)
    return report.exit_code
