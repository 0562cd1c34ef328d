"""Where things are for one checkout: project folder, cache, and the environment that child processes get."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.progress import say


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a checkout; `env` is what every child process of the set-up gets."""

    root: Path
    cache: Path
    env: dict[str, str]

    @property
    def local(self) -> Path:
        """Everything that belongs to this checkout and is not in git."""
        return self.root / ".podfleet"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def venv_python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def engines(self) -> Path:
        """Engines built here, one folder per content key, shared by all checkouts."""
        return self.cache / "engine"

    @property
    def pulumi_home(self) -> Path:
        """The scratch plugin home of local and test stacks; a real stack never sees it."""
        return self.local / "pulumi-home"

    def own_path(self, entry: str) -> bool:
        """Whether a PATH entry is one of ours (an activated stack environment puts them there)."""
        folder = Path(entry).resolve()
        return any(folder.is_relative_to(ours.resolve()) for ours in (self.engines, self.local, self.venv))


def base_python() -> Path:
    """The interpreter that runs us, seen through a virtual environment: `.venv` itself may be made anew."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def find_places(root: Path, environ: Mapping[str, str]) -> Places:
    """The user's cache folder, or one in the checkout where that cannot be written (read-only HOME)."""
    env = dict(environ)
    base = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or "/nonexistent") / ".cache")
    if not writable(base):
        say(f"{base} cannot be written: the cache is .podfleet/cache in the checkout")
        base = root / ".podfleet" / "cache"
        env["XDG_CACHE_HOME"] = str(base)  # uv and go follow it
    env.setdefault("UV_PYTHON_DOWNLOADS", "never")
    env.setdefault("UV_SYSTEM_CERTS", "true")  # a proxy's certificate stands in the system's list, not in uv's
    return Places(root=root, cache=base / "podfleet", env=env)


def writable(folder: Path) -> bool:
    """Whether `folder` can be made and written to; makes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
