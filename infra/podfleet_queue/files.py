"""The files of the queue's folder: audio, transcripts, uploads on their way, and the lock of the one server.

Called by `store` and `queue_routes`. A file appears under its name only when it is whole.
"""

import fcntl
import os
import re
import uuid
from pathlib import Path
from typing import TextIO

from podfleet_queue.errors import ServeError

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_UNSAFE = re.compile(r"[^\w .,()'-]+")


class QueueFolder:
    """`<dir>`: `queue.db`, `audio/<episode>.<ext>`, `transcripts/<episode>.md`, `uploads/`, `queue.lock`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "queue.db"
        self.audio = root / "audio"
        self.transcripts = root / "transcripts"
        self.uploads = root / "uploads"

    def prepare(self) -> None:
        """Make the folders, and remove uploads that a dead server left behind."""
        for folder in (self.audio, self.transcripts, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.uploads.iterdir():
            leftover.unlink()

    def lock(self) -> TextIO:
        """Keep a second server out; the kernel drops the lock with the process, however it ends.

        Raises ServeError when another server has the folder.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        handle = (self.root / "queue.lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise ServeError(f"the queue folder {self.root} is served by another podfleet-queue") from None
        return handle

    def new_upload(self) -> Path:
        """A fresh name for audio that is still arriving."""
        return self.uploads / f"{uuid.uuid4().hex}.part"

    def transcript(self, episode_id: int) -> Path:
        """Where the episode's transcript lies, or will lie."""
        return self.transcripts / f"{episode_id}.md"

    def write_transcript(self, episode_id: int, text: bytes) -> None:
        """Replace the episode's transcript in one step; on disk when this returns."""
        partial = self.uploads / f"{uuid.uuid4().hex}.md"
        with partial.open("wb") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(self.transcript(episode_id))
        _sync_folder(self.transcripts)

    def keep_audio(self, upload: Path, audio_file: str) -> None:
        """Move a finished upload to its place."""
        upload.replace(self.audio / audio_file)
        _sync_folder(self.audio)


def safe_suffix(filename: str) -> str:
    """The file's extension when it looks like one, else `.audio`."""
    suffix = Path(filename).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ".audio"


def download_name(day: str, title: str, audio_file: str) -> str:
    """`YYYY-MM-DD_Title.ext`, the only place where a node sees the true extension."""
    plain = _UNSAFE.sub("_", title).strip(" ._")[:80] or "episode"
    return f"{day}_{plain}{Path(audio_file).suffix}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
