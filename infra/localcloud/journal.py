"""A file that outlives the daemon: what changed, one JSON line per answer. Written and read by `keeping`.

A line is `{part: {key: value or null}}`; the last word on a key counts. A line is written whole before the answer
that speaks of it is sent, so a killed daemon has kept what it answered; a line cut short by the kill was never
answered. It is not synced to the disk: it survives the end of the process, not of the machine.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Changes = Mapping[str, Mapping[str, Any]]
Kept = dict[str, dict[str, Any]]


class Journal:
    """One file, readable by its owner alone: secret values stand in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> Kept:
        """What was kept, and a shorter file that says the same. ValueError for a line that is none of ours."""
        kept: Kept = {}
        for changes in _lines(self._path):
            for part, values in changes.items():
                records = kept.setdefault(part, {})
                for key, value in values.items():
                    if value is None:
                        records.pop(key, None)
                    else:
                        records[key] = value
        self._begin_anew(kept)
        return kept

    def write(self, changes: Changes) -> None:
        """Append one line."""
        if self._file is None:
            self._file = _open(self._path, os.O_APPEND)
        _write_all(self._file, changes)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin_anew(self, kept: Kept) -> None:
        self.close()
        draft = self._path.with_suffix(".tmp")
        descriptor = _open(draft, os.O_TRUNC)
        try:
            _write_all(descriptor, kept)
        finally:
            os.close(descriptor)
        draft.replace(self._path)


def _lines(path: Path) -> list[Changes]:
    try:
        *whole, _cut_short = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [_changes(line) for line in whole]


def _changes(line: bytes) -> Changes:
    changes = json.loads(line)
    if not isinstance(changes, dict) or not all(isinstance(values, dict) for values in changes.values()):
        raise ValueError("not the line of a journal")
    return changes


def _open(path: Path, flag: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)


def _write_all(descriptor: int, changes: Changes) -> None:
    line = json.dumps(changes, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[os.write(descriptor, line) :]
