"""The folder of an engine built here, and `.podfleet/toolchain.json`: where everything is.

`podfleet env`, the demo and the tests read the file: {"path": folders to put before PATH, in order, "pulumi",
"pulumi_version", "engine": "built" or "installed", "plugins": "real" or "standin", "pulumi_home"}.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

from provision.engine import Engine
from provision.places import Places

HOST = "pulumi-language-python"


def ensure_engine_folder(places: Places, engine: Engine) -> Path:
    """`.podfleet/bin` for an engine built here: the engine with our language host beside it. Returns the CLI to call.

    The engine warns about a language host that it finds on PATH and not beside itself; and where a link points is
    where it thinks it is. So the folder holds the engine itself, as a second name of the cached file where the disk
    allows that. An installed Pulumi brings its own language host: then nothing of ours is put on PATH.
    """
    folder = places.local / "bin"
    if not engine.built:
        shutil.rmtree(folder, ignore_errors=True)
        return engine.pulumi
    folder.mkdir(parents=True, exist_ok=True)
    for program in engine.pulumi.parent.iterdir():
        _same_file(program, folder / program.name)
    source = places.root / "tools" / "langhost" / "language_host.py"
    text = f'#!/bin/sh\nexec {shlex.quote(str(places.venv_python))} -u {shlex.quote(str(source))} "$@"\n'
    _write(folder / HOST, text, 0o755)
    return folder / engine.pulumi.name


def _same_file(source: Path, target: Path) -> None:
    """A hard link, or a copy on another disk; nothing when it is there already."""
    if target.exists():
        here, there = target.stat(), source.stat()
        if os.path.samestat(here, there) or (here.st_size, int(here.st_mtime)) == (there.st_size, int(there.st_mtime)):
            return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copy2(source, temporary)
    temporary.replace(target)


def write_toolchain(places: Places, engine: Engine, pulumi: Path, plugins: str) -> None:
    told = {
        # the environment first: the stock launcher of dynamic resources starts the first python3 on PATH
        "path": [str(places.venv / "bin"), *([str(pulumi.parent)] if engine.built else [])],
        "pulumi": str(pulumi),
        "pulumi_version": engine.version.removeprefix("v"),
        "engine": "built" if engine.built else "installed",
        "plugins": plugins,
        "pulumi_home": str(places.pulumi_home),
    }
    _write(places.local / "toolchain.json", json.dumps(told, indent=2) + "\n", 0o644)


def _write(file: Path, text: str, mode: int) -> None:
    """Whole or not at all, and not at all when it is the same."""
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(file)
