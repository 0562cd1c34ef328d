"""Content stamps: a step is done when its stamp file holds the hash of all that went into it."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provision.progress import say


def digest(*parts: str | Path) -> str:
    """A hash over texts and the contents of files; a folder counts with every file in it and its name."""
    total = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            total.update(len(piece).to_bytes(8, "big"))
            total.update(piece)
    return total.hexdigest()[:32]


def _pieces(part: str | Path) -> Iterator[bytes]:
    if isinstance(part, str):
        yield part.encode()
    elif part.is_dir():
        for file in sorted(part.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(part)).encode()
                yield file.read_bytes()
    else:
        yield part.name.encode()
        yield part.read_bytes()


def current(stamp: Path, key: str) -> bool:
    try:
        return stamp.read_text() == key
    except OSError:
        return False


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file while working; a second process waits, and says so. No lock where the disk offers none."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is busy with {what}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # some network disks; what is done under the lock is safe twice, only slower
            pass
        yield
