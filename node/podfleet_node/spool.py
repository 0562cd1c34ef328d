"""Finished transcripts on disk, until the server has accepted them. Used by the worker; survives its death."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from podfleet_node.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spooled:
    """One transcript to be sent. The server takes the same one again, so a restart may send it a second time."""

    job_id: int
    text: str
    model: str
    audio_s: float
    server_url: str  # another server's job of that number is another job


class Spool:
    """A folder with one file per job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, entry: Spooled) -> None:
        """On the disk when this returns."""
        write_json(self._path(entry.job_id), asdict(entry))

    def drop(self, job_id: int) -> None:
        """Accepted, or not ours any more."""
        self._path(job_id).unlink(missing_ok=True)

    def load(self) -> list[Spooled]:
        """What an earlier worker left; a torn file is removed, its job goes back by the next heartbeat."""
        if not self._folder.is_dir():
            return []
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(Spooled(**(read_json(path) or {})))
            except TypeError:
                path.unlink(missing_ok=True)
        return found

    def _path(self, job_id: int) -> Path:
        return self._folder / f"{job_id}.json"
