"""Commands that show and change nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

from podfleet.cli.shared import AsJson, StackName, cloud_of
from podfleet.workspace import find


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


def steps(stack: StackName) -> None:
    """Print the bootstrap steps of a pod as a shell script."""
    from podfleet.bootstrap import script

    print(script(find(stack, Path.cwd()).config(), name="NAME-OF-THE-POD"), end="")


def policy(stack: StackName) -> None:
    """Print the tailnet policy that the fleet needs, for `acl: none`."""
    from podfleet.acl import document

    print(document(server_port=find(stack, Path.cwd()).config().server_port), end="")
