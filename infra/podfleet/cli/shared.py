"""What the commands share: their arguments, and the way from a stack's name to its engine and its cloud."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podfleet.errors import PodfleetError
from podfleet.workspace import Workspace, complete, find, prepare

if TYPE_CHECKING:
    from podfleet.avoid import AvoidList
    from podfleet.config import PodfleetConfig
    from podfleet.deploy import Deployment
    from podfleet.providers.runpod.client import Access, RunpodClient

StackName = Annotated[str, typer.Argument(metavar="STACK", help="a stack in stacks/, for example local")]
INTERRUPTED = 130  # exit code after Ctrl-C, as a shell has it
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable, on stdout")]


def ready(stack: str) -> Workspace:
    """The workspace, with its config checked, its uid and SSH key made, and the cloud's key tried.

    Nothing has been changed in the cloud yet, and the engine has not been started.
    """
    workspace = find(stack, Path.cwd())
    prepare(workspace, os.environ)
    with cloud_of(workspace, workspace.config()) as cloud:
        cloud.list_pods()
    return workspace


@contextmanager
def healed(workspace: Workspace) -> Iterator[Deployment]:
    """The stack's engine: what a killed update has left is put right before it starts, and looked after at the end.

    What was put right is said in one line. Raises StackLocked where an update is running.
    """
    from podfleet.healing import Healing, last_look
    from podfleet.providers.runpod.settings import INTERRUPTED_VARIABLE

    env = environment_of(workspace)
    found = Healing(workspace, env).heal()
    if found.notes:
        tell(f"an update was killed here: {found}; going on")

    def look_again() -> None:
        if text := last_look(workspace, workspace.config(), env, found):
            tell(text)

    try:
        deployment = deployment_of(workspace)
        if found.interrupted_s is not None:  # Guard, too, looks again before it lets the last of the fleet go
            deployment.tell({INTERRUPTED_VARIABLE: f"{time.time() - time.monotonic() + found.interrupted_s:.1f}"})
        if found.put_back:
            deployment.refresh()
        yield deployment
    except PodfleetError:
        look_again()
        raise
    look_again()


def tell(text: str) -> None:
    """A line for people."""
    print(f"podfleet: {text}", file=sys.stderr)


def environment_of(workspace: Workspace) -> dict[str, str]:
    return complete(workspace, os.environ)


def deployment_of(workspace: Workspace) -> Deployment:
    from podfleet.deploy import Deployment

    full = environment_of(workspace)
    for name in os.environ.keys() - full.keys():
        del os.environ[name]  # the Automation API hands our own environment on: another stack's must not be in it,
    os.environ.update(full)  # and it looks for the engine on our own PATH
    deployment = Deployment(workspace, full, show=lambda text: print(text.rstrip("\n"), file=sys.stderr))
    deployment.tell(avoid_of(workspace).variable(now_s=time.time()))
    return deployment


def avoid_of(workspace: Workspace) -> AvoidList:
    """Hosts where a pod of this stack failed to boot."""
    from podfleet.avoid import AvoidList

    return AvoidList.of(workspace.state_dir, workspace.stack)


def cloud_of(workspace: Workspace, config: PodfleetConfig) -> closing[RunpodClient]:
    from podfleet.providers.runpod.client import RunpodClient

    return closing(RunpodClient(access_of(workspace, config)))


def access_of(workspace: Workspace, config: PodfleetConfig) -> Access:
    from podfleet.providers.runpod.settings import access_from

    return access_from(environment_of(workspace), config.runpod_url, config.uid)
