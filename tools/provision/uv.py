"""uv before there is an environment: one on PATH that fits, else the wheel that `requirements/bootstrap.lock` pins.

uv comes as a wheel that holds one program, so neither pip nor the venv module nor root is needed for it.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from provision.errors import SetupError
from provision.index import Index
from provision.places import Places
from provision.progress import run, say
from provision.stamps import only_one

PROGRAM = ".data/scripts/uv"


@dataclass(frozen=True, slots=True)
class Pinned:
    """The uv of the lock file: its version, and the hash of each platform's wheel."""

    version: str
    wheels: dict[str, str]


def read_lock(file: Path) -> Pinned:
    lines = [line.split() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    version = lines[0][0].removeprefix("uv==")
    return Pinned(version, {name: sha256.removeprefix("sha256:") for name, sha256 in lines[1:]})


def find_uv(places: Places) -> Path:
    """A uv that runs: from PATH (same or a newer minor of the pinned major), from the cache, or fetched now."""
    pinned = read_lock(places.root / "requirements" / "bootstrap.lock")
    if (found := shutil.which("uv", path=places.env.get("PATH"))) and _fits(found, pinned.version, places):
        return Path(found)
    target = places.cache / "uv" / pinned.version / "uv"
    if not target.exists():
        with only_one(places.cache / "uv" / f"{pinned.version}.lock", "fetching uv"):
            if not target.exists():
                _fetch(pinned, target, places)
    return target


def _fits(program: str, pinned: str, places: Places) -> bool:
    try:
        ran = run([program, "--version"], places.env, timeout_s=10)
    except OSError:
        return False
    found = re.match(r"uv (\d+)\.(\d+)", ran.text)
    major, minor = (int(part) for part in pinned.split(".")[:2])
    return ran.code == 0 and bool(found) and int(found[1]) == major and int(found[2]) >= minor  # type: ignore[index]


def choose_wheel(names: list[str], system: str, machine: str, musl: bool) -> str:
    """The wheel for a platform, by the tags in its name; SetupError where there is none."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    if system == "Darwin":
        wanted = re.compile(rf"macosx_\d+_\d+_{'arm64' if machine == 'aarch64' else machine}\b")
    else:
        wanted = re.compile(rf"{'musllinux' if musl else 'manylinux'}_\d+_\d+_{machine}\b")
    for name in names:
        if system in ("Darwin", "Linux") and wanted.search(name):
            return name
    raise SetupError(f"no uv is pinned for {system} on {machine}: put a uv on PATH yourself")


def _on_musl() -> bool:
    """Alpine and its like; asked only where `platform` finds no glibc."""
    return not platform.libc_ver()[0] and any(Path("/lib").glob("ld-musl-*"))


def _fetch(pinned: Pinned, target: Path, places: Places) -> None:
    name = choose_wheel(list(pinned.wheels), platform.system(), platform.machine(), _on_musl())
    say(f"fetching uv {pinned.version}")
    wheel = Index(places.env).fetch("uv", name, pinned.wheels[name])
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        program = archive.read(next(entry for entry in archive.namelist() if entry.endswith(PROGRAM)))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(program)
    os.chmod(temporary, 0o755)  # noqa: S103, PTH101 - a program that everybody may run
    os.replace(temporary, target)  # noqa: PTH105 - whole or not at all
    if sys.platform == "linux" and not os.access(target, os.X_OK):
        raise SetupError(f"programs in {target.parent} cannot be run (noexec?): set XDG_CACHE_HOME to another folder")
