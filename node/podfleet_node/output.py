"""Lines on stdout and stderr that never hold up or break their writer. Standard library only; used by `lines`, `logs`.

PID 1 prints, and so does its fuse: a log that nobody reads any more (a full pipe), or that is gone (a closed one),
must neither keep a pod alive nor end its first process. A line that cannot be written is dropped.
"""

from __future__ import annotations

import os
from select import PIPE_BUF, select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

PATIENCE_S = 0.2


def write_line(stream: TextIO, line: str) -> None:
    """Write one line past the stream's own buffer and lock, in pieces that a pipe with room takes at once."""
    rest = (line + "\n").encode(errors="backslashreplace")
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        stream.write(rest.decode())  # no file behind it: a test's
        return
    try:
        while rest and select([], [descriptor], [], PATIENCE_S)[1]:
            rest = rest[os.write(descriptor, rest[:PIPE_BUF]) :]
    except (OSError, ValueError):
        return
