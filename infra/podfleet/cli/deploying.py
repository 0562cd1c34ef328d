"""Commands that bring a stack to what its file wants."""

from __future__ import annotations

from podfleet.cli.shared import StackName, deployment_of, healed, ready


def preview(stack: StackName) -> None:
    """Check the config, then show what `up` would change, with dollars per hour now and then."""
    deployment_of(ready(stack)).preview()


def up(stack: StackName) -> None:
    """Check the config, then bring the fleet to what the stack file wants."""
    with healed(ready(stack)) as deployment:
        deployment.up()


def destroy(stack: StackName) -> None:
    """Drain and end every pod of the stack, then remove its keys and secrets."""
    with healed(ready(stack)) as deployment:
        deployment.destroy()
