"""The `command` and `tailscale` plugins in the scratch plugin home: the real ones, or our stand-ins (test doubles).

PODFLEET_PLUGINS=auto (default): with an installed Pulumi the real ones are tried first; with an engine built here
the stand-ins are used at once. `real` and `standin` leave no choice.
"""

from __future__ import annotations

import io
import shlex
import tarfile
import tempfile
from pathlib import Path

from provision.engine import Engine
from provision.errors import SetupError, Unreachable
from provision.places import Places
from provision.progress import Ran, run, say
from provision.stamps import current, digest

PLUGINS = (("command", "1.2.1"), ("tailscale", "0.29.2"))
CHOICES = ("auto", "real", "standin")
REAL_LIMIT_S = 20  # behind a silent proxy the engine waits for minutes
REAL_LIMIT_ASKED_S = 300


def ensure_plugins(places: Places, engine: Engine) -> str:
    """Put the plugins where they are missing or not current; returns which ones they are, "real" or "standin"."""
    choice = places.env.get("PODFLEET_PLUGINS") or "auto"
    if choice not in CHOICES:
        raise SetupError(f"PODFLEET_PLUGINS is {choice!r}: it can be {', '.join(CHOICES)}")
    files = [file for name, _ in PLUGINS for file in _files(name, _sources(places))]
    key = digest(choice, str(engine.pulumi), engine.version, str(places.venv_python), repr(PLUGINS), *files)
    stamp = places.pulumi_home / "podfleet-plugins"
    for kind in ("real", "standin"):
        if current(stamp, f"{kind} {key}") and all(_folder(places, *plugin).is_dir() for plugin in PLUGINS):
            return kind
    places.pulumi_home.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    kind = _install(places, engine, choice)
    stamp.write_text(f"{kind} {key}")
    return kind


def _sources(places: Places) -> Path:
    return places.root / "tools" / "standins"


def _files(name: str, sources: Path) -> tuple[Path, ...]:
    return sources / f"{name}.py", sources / "standin.py", sources.parent / "langhost" / "pulumi_protos.py"


def _folder(places: Places, name: str, version: str) -> Path:
    return places.pulumi_home / "plugins" / f"resource-{name}-v{version}"


def _install(places: Places, engine: Engine, choice: str) -> str:
    if choice == "real" or (choice == "auto" and not engine.built):
        limit_s = REAL_LIMIT_ASKED_S if choice == "real" else REAL_LIMIT_S
        failed = _install_real(places, engine, limit_s)
        if not failed:
            return "real"
        if choice == "real":
            raise Unreachable(f"the real Pulumi plugins cannot be fetched: look at HTTPS_PROXY ({failed})")
        say("the real plugins cannot be fetched: using the stand-ins")
    say("putting the stand-in plugins (test doubles) into the scratch plugin home")
    with tempfile.TemporaryDirectory() as scratch:
        for name, version in PLUGINS:
            packed = Path(scratch) / f"{name}.tgz"
            packed.write_bytes(pack(name, _sources(places), places.venv_python))
            ran = _plugin_install(places, engine, name, version, "--file", str(packed), "--reinstall")
            if ran.code:
                raise SetupError(f"the stand-in plugin {name} cannot be installed: {ran.last()}")
    return "standin"


def _install_real(places: Places, engine: Engine, limit_s: float) -> str:
    """Why it did not work; empty when it did."""
    for name, version in PLUGINS:
        say(f"fetching the plugin {name} {version}")
        ran = _plugin_install(places, engine, name, version, "--reinstall", limit_s=limit_s)
        if ran.code:
            return f"no answer in {limit_s:g} s" if ran.code == 124 else ran.last()
    return ""


def _plugin_install(
    places: Places, engine: Engine, name: str, version: str, *options: str, limit_s: float = 120
) -> Ran:
    env = {
        **places.env,
        "PULUMI_HOME": str(places.pulumi_home),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "NO_COLOR": "1",
    }
    command = [str(engine.pulumi), "plugin", "install", "resource", name, version, *options]
    return run(command, env, timeout_s=limit_s)


def pack(name: str, sources: Path, python: Path) -> bytes:
    """The plugin as Pulumi wants it: `pulumi-resource-NAME` with the modules it needs beside it.

    The program is a shell line that starts our Python: a path with blanks could not stand behind `#!`.
    """
    start = f'#!/bin/sh\nexec {shlex.quote(str(python))} -u "${{0%/*}}/{name}.py" "$@"\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        _add(archive, f"pulumi-resource-{name}", start.encode(), 0o755)
        for file in _files(name, sources):
            _add(archive, file.name, file.read_bytes(), 0o644)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
