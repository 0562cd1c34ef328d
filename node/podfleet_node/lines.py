"""The lines that a node prints on stdout for those who read a pod's log. PURE but for `say`.

The supervisor and the worker print them; the operator's side reads them through `podfleet_node.schemas`. Standard
library only: the first line comes before anything heavy is imported.
"""

from __future__ import annotations

import sys
from enum import StrEnum

from podfleet_node.output import write_line

HOST_KEY_LINE = "podfleet-node host-key "
PHASE_LINE = "podfleet-node phase "
READY_LINE = "podfleet-node ready "


class Phase(StrEnum):
    """Where a pod stands between its start and its end."""

    CREATING = "creating"
    STARTING = "starting"
    CONNECTING = "connecting"
    INSTALLING = "installing"
    SMOKE = "smoke"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"
    STOPPING = "stopping"


def host_key_line(public_key: str) -> str:
    """The line for the text of a public key file; the comment at its end names a machine and is left out."""
    return HOST_KEY_LINE + " ".join(public_key.split()[:2])


def phase_line(phase: Phase, text: str = "") -> str:
    """`podfleet-node phase <word> <free text>`, on one line whatever the text holds."""
    return f"{PHASE_LINE}{phase} {' '.join(text.split())}".rstrip()


def ready_line(*, node_id: str, metrics: str, engine: str) -> str:
    """The line that says: registered, beating, claiming."""
    return f"{READY_LINE}node={node_id} metrics={metrics} engine={engine}"


def say(line: str) -> None:
    """Print one line on stdout, at once: a pod's log is read while it runs. Never raises, never blocks for long."""
    write_line(sys.stdout, line)
