"""Where the node keeps its files below its root. PURE. Standard library only; used by supervisor, worker and cli."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """All places below one root (`/` in a pod of its own, a folder per pod where pods are local processes)."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """Settings written by `podfleet-node configure`."""
        return self.root / "etc/podfleet/node.json"

    @property
    def control_file(self) -> Path:
        """Address and token of the running node's control endpoint."""
        return self.root / "run/podfleet-node.json"

    @property
    def host_key_file(self) -> Path:
        """Public half of the SSH host key."""
        return self.root / "etc/ssh/ssh_host_ed25519_key.pub"

    @property
    def state_dir(self) -> Path:
        """What must survive a restart of the worker."""
        return self.root / "var/lib/podfleet"

    @property
    def identity_file(self) -> Path:
        """Node id and key at the queue server."""
        return self.state_dir / "identity.json"

    @property
    def spool_dir(self) -> Path:
        """Finished transcripts that the server has not accepted yet."""
        return self.state_dir / "spool"

    @property
    def work_dir(self) -> Path:
        """Audio in flight; emptied at every start of the worker."""
        return self.state_dir / "work"
