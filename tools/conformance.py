"""An environment of its own for RunPod's SDK, which the conformance test of localcloud runs unmodified.

The SDK brings 60 packages that nothing else needs, so they are not in `.venv`. Made once per lock, kept in the cache.
Prints the path of its Python: `$(.venv/bin/python tools/conformance.py)`; tests import `ensure_python`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from provision.errors import SetupError
from provision.places import Places, find_places
from provision.progress import say
from provision.stamps import digest, only_one
from provision.venv import sync

ROOT = Path(__file__).resolve().parent.parent


def ensure_python(places: Places) -> Path:
    """The Python of the environment; makes it where it is missing. Raises SetupError."""
    lock = places.root / "requirements" / "conformance.lock"
    folder = places.cache / "conformance" / digest(lock, sys.version, sys.base_prefix)
    python = folder / "bin" / "python"
    if python.exists():
        return python
    with only_one(folder.with_suffix(".lock"), "making the conformance environment"):
        if not python.exists():
            say("making the environment of the conformance test (RunPod's SDK)")
            _make(places, lock, folder)
    return python


def _make(places: Places, lock: Path, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        sync(places, scratch, lock)
        scratch.chmod(0o755)
        scratch.rename(folder)  # only its Python is started, and that knows its place by where it is
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> int:
    try:
        print(ensure_python(find_places(ROOT, os.environ)))
    except SetupError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
