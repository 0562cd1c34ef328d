"""The line between supervisor and worker: commands go down the worker's stdin, events come up a pipe. JSON lines.

Standard library only on the supervisor's side. When stdin ends, the supervisor is gone, and so must be the worker.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import Any


class Event(StrEnum):
    """What a worker tells its supervisor."""

    BEAT = "beat"  # I live; with a snapshot for `status`
    READY = "ready"  # registered and claiming
    ACCEPTED = "accepted"  # the server took a transcript: not a worker that crashes in a row
    DRAINED = "drained"  # the answer to a drain
    RELEASED = "released"  # nothing is held, the node is deregistered
    END = "end"  # this pod's reasons have ended
    RESTART = "restart"  # new settings want a new worker


class Command(StrEnum):
    """What a supervisor tells its worker."""

    DRAIN = "drain"
    RELOAD = "reload"


class Lines:
    """Bytes in, whole JSON objects out; used at both ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The objects that `chunk` completes; torn or foreign lines are dropped."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [found for line in whole if (found := _parsed(line)) is not None]


class EventPipe:
    """The worker's end. A supervisor that is gone is no error here: stdin says so too."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, event: Event, **fields: Any) -> None:
        """Send one event."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, encode({"event": event, **fields}))
        except OSError:
            self._descriptor = None


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
