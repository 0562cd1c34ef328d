"""The command `podfleet`: data on stdout, progress and errors on stderr, exit code 2 for bad input.

One module per group of commands; each command is a few lines over the module that does the work.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from podfleet.cli import deploying, ending, environment, seeing, sizing
from podfleet.errors import PodfleetError

app = typer.Typer(
    help="A GPU transcription fleet as code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    environment.env,
    environment.unlock,
    deploying.preview,
    deploying.up,
    deploying.destroy,
    sizing.scale,
    sizing.reconcile,
    sizing.why,
    seeing.status,
    seeing.doctor,
    seeing.steps,
    seeing.policy,
    ending.sweep,
)
for command in COMMANDS:  # in the order of the help
    app.command()(command)


@app.callback()
def _options(
    log_json: Annotated[bool, typer.Option(help="log events as JSON", envvar="PODFLEET_LOG_JSON")] = False,
) -> None:
    from podfleet import logs

    logs.configure(as_json=log_json)


def main() -> None:
    """Entry point. Errors are one line each; a traceback is a bug."""
    try:
        app()
    except PodfleetError as error:
        for line in str(error).splitlines():
            print(f"podfleet: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
