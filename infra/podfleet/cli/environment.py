"""Commands for a stack's environment."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from podfleet.cli.shared import StackName
from podfleet.workspace import find, prepare, without_made


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
