"""A pod's log: container lines (its stdout and stderr) and system lines (the cloud's own), with live readers.

Filled by `life`, read as server-sent events by the RunPod API; a copy goes to a file that outlives the pod.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import IO

KEPT_LINES = 20_000
SOURCES = ("container", "system")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `id` is what a reader resumes from."""

    seq: int
    at_s: float
    source: str
    text: str

    @property
    def ts(self) -> str:
        """RFC 3339, microseconds."""
        return rfc3339(self.at_s)

    @property
    def id(self) -> str:
        """`<ts>/<seq>`."""
        return f"{self.ts}/{self.seq:012}"


def rfc3339(at_s: float) -> str:
    """Epoch seconds as the APIs write times."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class PodLog:
    """Lines of one pod over all its containers."""

    def __init__(self, path: Path | None = None) -> None:
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self._seq = 0
        self._at_us = 0
        self._changed = asyncio.Event()
        self._closed = False
        if path and path.exists():
            self._resume(path)
        self._file: IO[str] | None = path.open("a", encoding="utf-8", errors="replace") if path else None

    def _resume(self, path: Path) -> None:
        """Take over the lines of an earlier log of this pod."""
        for row in path.read_text("utf-8", "replace").split("\n"):
            ts, _, rest = row.partition(" ")
            source, _, text = rest.partition(" ")
            if source in SOURCES:
                self._seq += 1
                at_s = datetime.fromisoformat(ts).timestamp()
                self._at_us = round(at_s * 1e6)
                self._lines.append(LogLine(self._seq, at_s, source, text))

    def add(self, source: str, text: str) -> None:
        """Append one line."""
        self._seq += 1
        self._at_us = max(time.time_ns() // 1000, self._at_us + 1)  # so that `since` is exact: no two lines share a ts
        line = LogLine(self._seq, self._at_us / 1e6, source, text)
        self._lines.append(line)
        if self._file:
            self._file.write(f"{line.ts} {source} {text}\n")
            self._file.flush()
        self._wake()

    def lines(self) -> list[LogLine]:
        """All kept lines."""
        return list(self._lines)

    def close(self) -> None:
        """No more lines: live readers end."""
        self._closed = True
        if self._file:
            self._file.close()
            self._file = None
        self._wake()

    async def follow(self, after_seq: int, idle_s: float) -> AsyncIterator[LogLine | None]:
        """Lines after `after_seq` as they come, until the log is closed; None after each idle time."""
        seen = after_seq
        while True:
            changed = self._changed
            for line in self._after(seen):
                seen = line.seq
                yield line
            if self._closed:
                return
            try:
                await asyncio.wait_for(changed.wait(), idle_s)
            except TimeoutError:
                yield None

    def _after(self, seq: int) -> list[LogLine]:
        newer = list(takewhile(lambda line: line.seq > seq, reversed(self._lines)))
        return newer[::-1]

    @property
    def last_seq(self) -> int:
        """Number of the newest line."""
        return self._seq

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
