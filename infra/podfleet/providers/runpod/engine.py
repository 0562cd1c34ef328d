"""Is the engine that started this provider process still there?

A provider process outlives an engine that was killed and goes on working off its queue: pods that nobody records. So
the core asks here before each POST and each end of a pod.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from podfleet.errors import EngineGone
from podfleet.providers.runpod.stopping import STOPPING

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "busybox"})
ADDRESS = re.compile(r"127\.0\.0\.1:(\d{1,5})")


class EngineWatch:
    """Two signs of life: the chain of parent processes as it was at the start, and the engine's own port."""

    def __init__(self, chain: Callable[[], tuple[int, ...]], port: int | None) -> None:
        self._chain = chain
        self._at_start = chain()
        self._port = port

    def require(self, what: str) -> None:
        """Raises EngineGone, or Interrupted where it was told to stop, so that `what` is not done."""
        STOPPING.check(what)
        if not self.alive():
            raise EngineGone(
                f"the engine that asked for it has died; not done: {what}; run `pulumi up` or `destroy` again"
            )

    def alive(self) -> bool:
        """False once the engine is gone."""
        return self._chain() == self._at_start and _listens(self._port)


class NoEngine:
    """For callers that are not children of an engine: tests, `podfleet sweep`."""

    def require(self, what: str) -> None:
        """Nothing to check."""


def watch_engine(argv: Sequence[str] | None = None) -> EngineWatch:
    """Made once per process, at configure(). The launcher gets the engine's address as its last argument."""
    arguments = sys.argv if argv is None else argv
    match = ADDRESS.fullmatch(arguments[-1]) if len(arguments) > 1 else None
    return EngineWatch(parents, int(match[1]) if match else None)


def parents() -> tuple[int, ...]:
    """Our parent; where that is the launcher's shell (which outlives a killed engine), its parent too."""
    parent = os.getppid()
    stat = _stat(parent)
    if stat is None or stat[0] not in SHELLS:
        return (parent,)
    return (parent, stat[1])


def _stat(pid: int) -> tuple[str, int] | None:
    """Name and parent of a process, where the system shows them (Linux)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.rpartition(")")
    return name.partition("(")[2], int(rest.split()[1])


def _listens(port: int | None) -> bool:
    """The engine serves its plugins for as long as it lives; no address known, no statement."""
    if port is None:
        return True
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:  # a busy machine is no proof
        return True
