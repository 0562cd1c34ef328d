"""This machine: Python, packages, the engine, its plugins, the launcher. Reads; starts nothing but `pulumi version`."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from podfleet.doctor.findings import Finding, fail, ok, warn

SET_UP = "run `make setup`, then `. .venv/bin/activate`"
OLDEST_ENGINE, TOO_NEW_ENGINE = (3, 259), (4,)
PYTHONS = ((3, 11), (3, 14))
PLUGINS = ("command", "tailscale")
LANGUAGE = "pulumi-language-python"
LAUNCHER = "PODFLEET_LAUNCHER"
NO_PLUGIN_DOWNLOAD = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
VERSION_S = 20.0
SPEC = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:==\s*([\w.]+))?")


def check_machine(env: Mapping[str, str]) -> Iterator[Finding]:
    """`env` is the stack's whole environment, or this shell's."""
    yield _python(sys.version_info[:2])
    yield _packages(_required())
    yield _engine(env)
    yield _plugins(env)
    yield launcher_finding(env.get(LAUNCHER))
    yield _system()


def _python(version: tuple[int, int]) -> Finding:
    text = platform.python_version()
    if version < PYTHONS[0]:
        return fail("Python", text, "podfleet needs 3.11 or newer: " + SET_UP)
    return ok("Python", text) if version < PYTHONS[1] else warn("Python", f"{text}, newer than what is tested")


def _required() -> dict[str, str]:
    """Name → pinned version or empty, as the installed podfleet says."""
    try:
        lines = metadata.requires("podfleet") or []
    except metadata.PackageNotFoundError:
        return {"podfleet": ""}
    found = (SPEC.match(line) for line in lines if "extra ==" not in line)
    return {match[1]: match[2] or "" for match in found if match}


def _packages(required: Mapping[str, str]) -> Finding:
    problems = []
    for name, pinned in required.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(f"{name} is missing")
            continue
        if pinned and version != pinned:
            problems.append(f"{name} is {version}, wanted is {pinned}")
    if problems:
        return fail("packages", "; ".join(problems), SET_UP)
    return ok("packages", f"{len(required)} of {len(required)}")


def _engine(env: Mapping[str, str]) -> Finding:
    program = shutil.which("pulumi", path=env.get("PATH"))
    if program is None:
        return fail("engine", "pulumi is not on PATH", SET_UP + ", or install Pulumi 3.259 or newer")
    try:
        shown = subprocess.run(
            [program, "version"], env=dict(env), capture_output=True, text=True, check=False, timeout=VERSION_S
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail("engine", f"{program} does not run: {error}", SET_UP)
    return engine_finding(shown, program)


def engine_finding(shown: str, program: str) -> Finding:
    """By what `pulumi version` says."""
    version = tuple(map(int, re.findall(r"\d+", shown)[:2]))
    if not version:
        return fail("engine", f"{program} does not tell its version: {shown[:60]!r}", SET_UP)
    if not OLDEST_ENGINE <= version < TOO_NEW_ENGINE:
        return fail("engine", f"Pulumi {shown} at {program}", "podfleet needs 3.259 or newer, of major version 3")
    return ok("engine", f"Pulumi {shown}")


def _plugins(env: Mapping[str, str]) -> Finding:
    """Versions are those of the Python packages that the program uses."""
    home = Path(env.get("PULUMI_HOME") or Path(env.get("HOME") or Path.home()) / ".pulumi")
    missing = []
    for name in PLUGINS:
        try:
            version = metadata.version(f"pulumi-{name}")
        except metadata.PackageNotFoundError:
            continue  # told as a package
        if not (home / "plugins" / f"resource-{name}-v{version}").is_dir():
            missing.append(f"{name} {version}")
    if shutil.which(LANGUAGE, path=env.get("PATH")) is None:
        return fail("plugins", f"{LANGUAGE} is not on PATH, beside pulumi", SET_UP)
    if not missing:
        return ok("plugins", f"in {home}")
    if env.get(NO_PLUGIN_DOWNLOAD):
        return fail("plugins", f"missing in {home}: {', '.join(missing)}", SET_UP)
    return warn("plugins", f"not in {home} yet: {', '.join(missing)}", "the engine fetches them at the first `up`")


def launcher_finding(chosen: str | None) -> Finding:
    """What runs the providers; it is chosen by the environment."""
    if chosen in (None, "", "own"):
        return ok("launcher", "own: 64 operations at once")
    if chosen == "stock":
        return warn(
            "launcher", "stock: four operations at once, no answer to Ctrl-C", f"unset {LAUNCHER} for the own one"
        )
    return fail("launcher", f"{LAUNCHER} is {chosen!r}", "it can be own or stock")


def _system() -> Finding:
    if sys.platform.startswith("linux"):
        return ok("system", f"Linux {platform.release()}")
    return warn("system", platform.system(), "left-over processes of a killed update are found on Linux only")
