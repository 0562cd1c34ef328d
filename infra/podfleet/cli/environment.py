"""Commands for what a stack's engine needs around it: its environment, and a state that nobody holds."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from podfleet.cli.shared import StackName, cloud_of, environment_of, tell
from podfleet.errors import PodfleetError
from podfleet.workspace import Workspace, find, prepare, without_made


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


def unlock(stack: StackName) -> None:
    """Put right what a killed update has left: its lock (when its process is proven dead), its processes, its state.

    `up` and `destroy` do this by themselves, but for a state that is not on this machine's disk.
    """
    from podfleet.healing import Healing

    workspace = find(stack, Path.cwd())
    workspace.config()  # says what is wrong with it
    found = Healing(workspace, environment_of(workspace), by_hand=True).heal()
    for note in found.notes or ("nothing to unlock: no lock, no leftover process, no pending operation",):
        print(note)
    if found.interrupted_s is not None:
        _say_what_is_left(workspace)


def _say_what_is_left(workspace: Workspace) -> None:
    from podfleet.healing import unknown_now

    config = workspace.config()
    try:
        with cloud_of(workspace, config) as cloud:
            nobodys, adopted = unknown_now(workspace, config, environment_of(workspace), cloud.list_pods())
    except PodfleetError as error:
        tell(f"whether it has left pods cannot be seen: {error}")
        return
    for pod in (*nobodys, *adopted):
        then = "sweep --yes` ends it" if pod in nobodys else "up` takes it over"
        print(f"pod {pod.name} ({pod.id}) is not in the state: `podfleet {then}")
