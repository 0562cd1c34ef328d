"""Commands that bring a stack to what its file wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.cli.shared import INTERRUPTED, StackName, avoid_of, cloud_of, deployment_of, healed, ready, tell

if TYPE_CHECKING:
    from podfleet.deploy import Deployment
    from podfleet.workspace import Workspace


def preview(stack: StackName) -> None:
    """Check the config, then show what `up` would change, with dollars per hour now and then."""
    deployment_of(ready(stack)).preview()


def up(
    stack: StackName,
    wait: Annotated[
        bool, typer.Option("--wait", help="until each pod's node works; pods that fail are replaced (replacements)")
    ] = False,
) -> None:
    """Check the config, look what has become of the pods, then bring the fleet to what the stack file wants."""
    workspace = ready(stack)
    with healed(workspace) as deployment:
        if not wait:
            deployment.up(refresh=True)
            return
        try:
            print(_up_and_wait(workspace, deployment))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def destroy(stack: StackName) -> None:
    """Drain and end every pod of the stack, then remove its keys and secrets."""
    with healed(ready(stack)) as deployment:
        deployment.destroy()


def _up_and_wait(workspace: Workspace, deployment: Deployment) -> str:
    from podfleet.awaiting import Outside, UpAndWait
    from podfleet.providers.runpod.clock import RealClock
    from podfleet.signals.queue import QueueSignal

    config = workspace.config()
    with cloud_of(workspace, config) as cloud, QueueSignal(config.queue_url) as queue:
        outside = Outside(deployment, cloud, queue, avoid_of(workspace), RealClock(), tell)
        waiting = UpAndWait(workspace.config, stack=workspace.stack, prefix=workspace.prefix, outside=outside)
        return waiting.run()
