"""Commands that show and change nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.cli.shared import INTERRUPTED, AsJson, StackName, access_of, cloud_of, environment_of, tell
from podfleet.errors import ConfigError
from podfleet.workspace import find, without_stack

if TYPE_CHECKING:
    from podfleet.doctor.findings import Finding
    from podfleet.workspace import Workspace

NEEDED_LIVE = frozenset({"stack file", "uid and shell", "RunPod", "RunPod key"})


def status(stack: StackName, as_json: AsJson = False) -> None:
    """The stack's pods as the cloud lists them now, their nodes, what differs from the wish, and the money."""
    from podfleet.glance import look
    from podfleet.signals.queue import QueueSignal
    from podfleet.tables import show

    workspace = find(stack, Path.cwd())
    config = workspace.config()
    with cloud_of(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        seen = look(workspace, config, cloud, queue, now_s=time.time())
    if as_json:
        print(json.dumps(seen.json()))
    else:
        show(seen, low_balance_hours=config.low_balance_hours)


def doctor(
    stack: Annotated[
        str | None, typer.Argument(metavar="[STACK]", help="also this stack, and what it talks to")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="ask RunPod what its documentation does not settle; free")
    ] = False,
    spend: Annotated[
        bool,
        typer.Option("--spend", help="with --live: rent the cheapest pod for about a minute; shows the price, asks"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine, and a stack: what is there, what is missing, and what to do. Changes nothing."""
    from podfleet.doctor.findings import as_json as in_json
    from podfleet.doctor.findings import exit_code, last_line

    if live and not stack:
        raise ConfigError(["doctor: --live needs a STACK: its RunPod URL and key are asked"])
    if spend and not live:
        raise ConfigError(["doctor: --spend belongs to --live"])
    workspace = find(stack, Path.cwd()) if stack else None
    found: list[Finding] = []
    for finding in _checks(workspace, live=live, spend=spend, yes=yes):
        found.append(finding)
        if not as_json:
            print(finding.line(), flush=True)
    print(json.dumps(in_json(found)) if as_json else last_line(found))
    raise typer.Exit(exit_code(found))


def _checks(workspace: Workspace | None, *, live: bool, spend: bool, yes: bool) -> Iterator[Finding]:
    from podfleet.doctor.findings import exit_code
    from podfleet.doctor.machine import check_machine
    from podfleet.doctor.stack import check_stack

    if workspace is None:
        yield from check_machine(without_stack(Path.cwd(), os.environ))
        return
    try:
        env = environment_of(workspace)
    except ConfigError:  # told below, as the stack file's problem
        env = dict(os.environ)
    yield from check_machine(env)
    found = []
    for finding in check_stack(workspace, env, now_s=time.time()):
        found.append(finding)
        yield finding
    if live and not exit_code(each for each in found if each.what in NEEDED_LIVE):
        yield from _live(workspace)
        if spend:
            yield from _spend(workspace, env, yes=yes)


def _live(workspace: Workspace) -> Iterator[Finding]:
    from podfleet.doctor.live import ask_live, v1_url
    from podfleet.doctor.raw import Raw

    access = access_of(workspace, workspace.config())
    with Raw(access.base_url, access.api_key) as api, Raw(v1_url(access.base_url)) as v1:
        yield from ask_live(api, v1)


def _spend(workspace: Workspace, env: Mapping[str, str], *, yes: bool) -> Iterator[Finding]:
    from podfleet.doctor.probe import Probe
    from podfleet.providers.runpod.clock import RealClock
    from podfleet.stackcloud import stack_cloud

    config, clock = workspace.config(), RealClock()
    with stack_cloud(workspace, config, env, clock=clock) as cloud:
        probe = Probe(config, prefix=workspace.prefix, cloud=cloud, clock=clock)
        offers = probe.offers()
        if offers:
            _agree(f"this rents {offers[0]}, and ends it", yes=yes)
        try:
            yield from probe.findings(offers)
        except KeyboardInterrupt:
            tell(f"interrupted: {probe.ended.text if probe.ended else 'look with `podfleet sweep`'}")
            raise typer.Exit(INTERRUPTED) from None


def _agree(what: str, *, yes: bool) -> None:
    """Raises ConfigError where nobody can be asked, Exit where somebody says no."""
    tell(what)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(["doctor: --spend asks before it rents; where nobody can answer, give --yes"])
    if not typer.confirm("rent it?", err=True):
        raise typer.Exit(1)


def steps(stack: StackName) -> None:
    """Print the bootstrap steps of a pod as a shell script."""
    from podfleet.bootstrap import script

    print(script(find(stack, Path.cwd()).config(), name="NAME-OF-THE-POD"), end="")


def policy(stack: StackName) -> None:
    """Print the tailnet policy that the fleet needs, for `acl: none`."""
    from podfleet.acl import document

    print(document(server_port=find(stack, Path.cwd()).config().server_port), end="")
