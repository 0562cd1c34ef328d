"""The log of everything that happened: what tests and the ledger's readers recompute from.

Every part of the cloud appends; `GET /_emu/events` and `<dir>/events.jsonl` show the same objects.
"""

import json
import time
from pathlib import Path
from typing import IO, Any

Event = dict[str, Any]


class EventLog:
    """Numbered events, in memory and (flushed line by line) in a file."""

    def __init__(self, path: Path | None = None, *, resume: bool = False) -> None:
        self._events: list[Event] = _read(path) if path and resume else []
        self._seq = self._events[-1]["seq"] if self._events else 0
        self._file: IO[str] | None = path.open("a", encoding="utf-8") if path else None

    def add(self, kind: str, *, at_s: float | None = None, **fields: Any) -> Event:
        """Append one event; `at_s` is its time when the caller has stamped something else with the same instant."""
        self._seq += 1
        event: Event = {"seq": self._seq, "ts": time.time() if at_s is None else at_s, "kind": kind, **fields}
        self._events.append(event)
        if self._file:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        return event

    def since(self, seq: int) -> list[Event]:
        """All events after number `seq`."""
        if seq <= 0:
            return list(self._events)
        first = self._events[0]["seq"] if self._events else 1
        return self._events[max(0, seq - first + 1) :]

    def clear(self) -> None:
        """Forget the past; numbers go on, the file keeps what it has."""
        self._events.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None


def _read(path: Path) -> list[Event]:
    """Since the last reset, what an earlier log wrote; a line that its end cut short is cut off the file, too."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    events: list[Event] = [json.loads(line) for line in whole.splitlines()]
    resets = [number for number, event in enumerate(events) if event["kind"] == "cloud.reset"]
    return events[resets[-1] :] if resets else events
