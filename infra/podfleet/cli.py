"""The command `podfleet`: data on stdout, progress and errors on stderr, exit code 2 for bad input.

Each command is a few lines over `workspace`, `deploy`, `reconciler` and the provider's client.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.errors import ConfigError, PodfleetError
from podfleet.workspace import Workspace, complete, find, prepare, without_made

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig
    from podfleet.deploy import Deployment
    from podfleet.placement import Quote
    from podfleet.providers.runpod.client import Access, RunpodClient

app = typer.Typer(
    help="A GPU transcription fleet as code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
StackName = Annotated[str, typer.Argument(metavar="STACK", help="a stack in stacks/, for example local")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable, on stdout")]


@app.callback()
def _options(
    log_json: Annotated[bool, typer.Option(help="log events as JSON", envvar="PODFLEET_LOG_JSON")] = False,
) -> None:
    from podfleet import logs

    logs.configure(as_json=log_json)


@app.command()
def env(stack: StackName) -> None:
    """Print the environment of a stack: `eval "$(podfleet env local)"`; makes its uid and SSH key when it has none."""
    workspace = find(stack, Path.cwd())
    made = prepare(workspace, os.environ)
    before = without_made(os.environ)
    for name in sorted(os.environ.keys() - before.keys() - made.keys()):
        print(f"unset {name}")
    given_back = {name: value for name, value in before.items() if os.environ.get(name) != value}
    for name, value in sorted({**given_back, **made}.items()):
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def preview(stack: StackName) -> None:
    """Check the config, then show what `up` would change, with dollars per hour now and then."""
    _deployment(_ready(stack)).preview()


@app.command()
def up(stack: StackName) -> None:
    """Check the config, then bring the fleet to what the stack file wants."""
    _deployment(_ready(stack)).up()


@app.command()
def destroy(stack: StackName) -> None:
    """Drain and end every pod of the stack, then remove its keys and secrets."""
    _deployment(_ready(stack)).destroy()


@app.command()
def scale(stack: StackName, pods: Annotated[int, typer.Argument(min=0)]) -> None:
    """Set the size by hand; fewer pods: idle ones go first, as the queue tells them."""
    from podfleet.config import slots_for

    workspace = _ready(stack)
    config = workspace.config()
    if pods > config.max_pods:
        raise ConfigError([f"podfleet:pods: {pods} is more than podfleet:maxPods ({config.max_pods})"])
    deployment = _deployment(workspace)
    choice = 0 < pods < len(config.wanted_slots)  # else there is none: a queue that is down must not block a `scale 0`
    slots = _chosen_slots(workspace, pods) if choice else slots_for(pods, config.wanted_slots)
    deployment.resize(slots, decision=f"{len(config.wanted_slots)} → {pods} pods: set by hand")


@app.command()
def reconcile(
    stack: StackName,
    once: Annotated[bool, typer.Option("--once", help="one round, for cron and CI")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print decision and price, change nothing")] = False,
) -> None:
    """Size the fleet from the queue: observe, decide, write the stack's config, `up`."""
    if once == dry_run:
        raise ConfigError(["reconcile: give --once or --dry-run"])
    from podfleet.reconciler import tick
    from podfleet.signals.queue import QueueSignal

    workspace = find(stack, Path.cwd()) if dry_run else _ready(stack)
    config = workspace.config()
    deployment = None if dry_run else _deployment(workspace)
    with _cloud(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        decision = tick(
            config, prefix=workspace.prefix, deployment=deployment, cloud=cloud, queue=queue, now_s=time.time()
        )
    print(decision.reason)
    if dry_run:
        print(f"price: {_price(workspace, config, decision.slots)}")


@app.command()
def why(stack: StackName) -> None:
    """Explain the size of the fleet in one sentence."""
    config = find(stack, Path.cwd()).config()
    print(config.decision or f"{config.pods} pods: podfleet:pods says so; the reconciler has not decided yet")


@app.command()
def status(stack: StackName, as_json: AsJson = False) -> None:
    """The stack's pods as the cloud lists them now, and what they cost."""
    from podfleet.tables import fleet_rows, show

    workspace = find(stack, Path.cwd())
    config = workspace.config()
    with _cloud(workspace, config) as cloud:
        rows = fleet_rows(cloud.list_pods(), uid=config.uid, prefix=workspace.prefix)
    if as_json:
        print(json.dumps(rows))
    else:
        show(rows, now_s=time.time())


@app.command()
def steps(stack: StackName) -> None:
    """Print the bootstrap steps of a pod as a shell script."""
    from podfleet.bootstrap import script

    print(script(find(stack, Path.cwd()).config(), name="NAME-OF-THE-POD"), end="")


@app.command()
def policy(stack: StackName) -> None:
    """Print the tailnet policy that the fleet needs, for `acl: none`."""
    from podfleet.acl import document

    print(document(server_port=find(stack, Path.cwd()).config().server_port), end="")


def _ready(stack: str) -> Workspace:
    """The workspace, with its config checked, its uid and SSH key made, and the cloud's key tried.

    Nothing has been changed in the cloud yet, and the engine has not been started.
    """
    workspace = find(stack, Path.cwd())
    prepare(workspace, os.environ)
    with _cloud(workspace, workspace.config()) as cloud:
        cloud.list_pods()
    return workspace


def _full(workspace: Workspace) -> dict[str, str]:
    return complete(workspace, os.environ)


def _deployment(workspace: Workspace) -> Deployment:
    from podfleet.deploy import Deployment

    full = _full(workspace)
    for name in os.environ.keys() - full.keys():
        del os.environ[name]  # the Automation API hands our own environment on: another stack's must not be in it,
    os.environ.update(full)  # and it looks for the engine on our own PATH
    return Deployment(workspace, full, show=lambda text: print(text.rstrip("\n"), file=sys.stderr))


def _cloud(workspace: Workspace, config: PodfleetConfig) -> closing[RunpodClient]:
    from podfleet.providers.runpod.client import RunpodClient

    return closing(RunpodClient(_access(workspace, config)))


def _access(workspace: Workspace, config: PodfleetConfig) -> Access:
    from podfleet.providers.runpod.settings import access_from

    return access_from(_full(workspace), config.runpod_url, config.uid)


def _price(workspace: Workspace, config: PodfleetConfig, slots: tuple[str, ...]) -> Quote:
    from podfleet.providers.runpod.prices import price_plan

    return price_plan(config, slots, prefix=workspace.prefix, access=_access(workspace, config))


def _chosen_slots(workspace: Workspace, pods: int) -> tuple[str, ...]:
    from podfleet.reconciler import observe
    from podfleet.scaling import idle_first
    from podfleet.signals.queue import QueueSignal

    config = workspace.config()
    with _cloud(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        seen = observe(config, prefix=workspace.prefix, cloud=cloud, queue=queue, now_s=time.time())
    return idle_first(pods, seen.fleet)


def main() -> None:
    """Entry point. Errors are one line each; a traceback is a bug."""
    try:
        app()
    except PodfleetError as error:
        for line in str(error).splitlines():
            print(f"podfleet: {line}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
