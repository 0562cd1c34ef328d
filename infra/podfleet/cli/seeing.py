"""Commands that show and change nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

from podfleet.cli.shared import AsJson, StackName, cloud_of
from podfleet.workspace import find


def status(stack: StackName, as_json: AsJson = False) -> None:
    """The stack's pods as the cloud lists them now, and what they cost."""
    from podfleet.tables import fleet_rows, show

    workspace = find(stack, Path.cwd())
    config = workspace.config()
    with cloud_of(workspace, config) as cloud:
        rows = fleet_rows(cloud.list_pods(), uid=config.uid, prefix=workspace.prefix)
    if as_json:
        print(json.dumps(rows))
    else:
        show(rows, now_s=time.time())


def steps(stack: StackName) -> None:
    """Print the bootstrap steps of a pod as a shell script."""
    from podfleet.bootstrap import script

    print(script(find(stack, Path.cwd()).config(), name="NAME-OF-THE-POD"), end="")


def policy(stack: StackName) -> None:
    """Print the tailnet policy that the fleet needs, for `acl: none`."""
    from podfleet.acl import document

    print(document(server_port=find(stack, Path.cwd()).config().server_port), end="")
