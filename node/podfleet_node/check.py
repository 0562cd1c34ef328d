"""What `podfleet-node check` prints: can this pod work, and with what? Nothing heavy is imported to find out."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from podfleet_node.audio import find_decoder
from podfleet_node.engines import ENGINES
from podfleet_node.files import read_json
from podfleet_node.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGES = ("podfleet-node", "pocketsphinx", "av", "httpx", "anyio", "pydantic")


def report(environ: Mapping[str, str]) -> Iterator[str]:
    """One fact per line: `name value`."""
    yield f"python {platform.python_version()}"
    for package in PACKAGES:
        yield f"{package} {_version(package)}"
    yield f"engines {' '.join(sorted(ENGINES))}"
    if wanted := _wanted_engine(environ):
        yield f"engine {wanted}"
    yield f"decoder {find_decoder(environ.get('PATH', '')) or 'none'}"


def missing(environ: Mapping[str, str], engine: str = "") -> list[str]:
    """Why this pod cannot work; `engine` is asked for instead of the setting."""
    wanted = engine or _wanted_engine(environ)
    problems = []
    if wanted and wanted not in ENGINES:
        problems.append(f"engine: {wanted!r} is not in this pod, which has {', '.join(sorted(ENGINES))}")
    if not find_decoder(environ.get("PATH", "")):
        problems.append("decoder: neither ffmpeg on PATH nor PyAV")
    return problems


def _wanted_engine(environ: Mapping[str, str]) -> str:
    file_values = read_json(Paths(Path(environ.get("PODFLEET_ROOT") or "/")).settings_file) or {}
    return str(file_values.get("engine") or environ.get("PODFLEET_ENGINE") or "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
