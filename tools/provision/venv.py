"""The environment `.venv`: every locked package, and our two distributions as editable installs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from provision.errors import SetupError, Unreachable
from provision.index import settings
from provision.places import Places, base_python
from provision.progress import Ran, run, say
from provision.stamps import current, digest
from provision.uv import find_uv

# how uv reports a registry that cannot be reached (measured with 0.13)
NETWORK_SIGNS = (
    "failed to fetch",
    "error sending request",
    "dns error",
    "connect error",
    "connection refused",
    "timed out",
)


def ensure_venv(places: Places) -> bool:
    """Make `.venv` what the lock file says; True when something had to be done."""
    stamp, key = places.venv / ".podfleet-stamp", venv_key(places)
    if current(stamp, key) and places.venv_python.exists():
        return False
    stamp.unlink(missing_ok=True)
    uv = sync(places, places.venv, lock(places))
    editable = [word for part in (places.root, places.root / "node") for word in ("--editable", str(part))]
    command = [*_pip(uv, "install"), "--no-deps", "--no-build-isolation", *editable]
    _checked(run(command, _env(places, places.venv)), "uv pip install")
    stamp.write_text(key)
    return True


def sync(places: Places, folder: Path, locked: Path) -> Path:
    """Make `folder` an environment of exactly the locked packages, anew where its Python is another. Returns the uv."""
    uv, env = find_uv(places), _env(places, folder)
    if not _same_python(places, folder / "bin" / "python"):
        say(f"making an environment with Python {sys.version.split()[0]}")
        _checked(run([uv, "venv", "--clear", "--quiet", "--python", base_python(), folder], env), "uv venv")
    say(f"installing the Python packages of {locked.name}")
    _checked(run([*_pip(uv, "sync"), "--require-hashes", locked], env, alive=_alive), "uv pip sync")
    return uv


def _env(places: Places, folder: Path) -> dict[str, str]:
    env = {**settings(places.env).for_uv(), **places.env, "VIRTUAL_ENV": str(folder)}
    env.pop("PYTHONHOME", None)
    return env


def lock(places: Places) -> Path:
    return places.root / "requirements" / "dev.lock"


def venv_key(places: Places) -> str:
    """Everything that decides what is in `.venv`: also the checkout's path, which editable installs hold."""
    projects = [places.root / "pyproject.toml", places.root / "node" / "pyproject.toml"]
    return digest(lock(places), *projects, sys.version, sys.base_prefix, str(places.root))


def _same_python(places: Places, python: Path) -> bool:
    """Whether the environment that is there runs, and with this very Python."""
    if not python.exists():
        return False
    try:
        asked = run([python, "-c", "import sys; print(sys.version, sys.base_prefix)"], places.env)
    except OSError:
        return False
    return asked.code == 0 and asked.text == f"{sys.version} {sys.base_prefix}"


def _pip(uv: Path, verb: str) -> list[str]:
    return [str(uv), "pip", verb, "--quiet"]


def _alive(_lines: list[str], seconds: float) -> str:
    return f"still installing Python packages, {seconds:.0f} s"


def _checked(ran: Ran, what: str) -> None:
    if ran.code == 0:
        return
    if any(sign in ran.text.lower() for sign in NETWORK_SIGNS):
        raise Unreachable(
            "the Python package index cannot be reached: look at PIP_INDEX_URL, HTTPS_PROXY and SSL_CERT_FILE "
            f"({_cause(ran)})"
        )
    if built := re.search(r"Failed to build `([^`]+)`", ran.text):
        raise SetupError(
            f"{built[1]} is not ready-made for Python {sys.version.split()[0]} on this machine and could not be built: "
            f"try another Python, such as `make PYTHON=python3.13` ({_cause(ran)[-200:]})"
        )
    look = ": look at PIP_INDEX_URL" if "not found in the package registry" in ran.text else ""
    raise SetupError(f"{what} failed{look} ({_cause(ran)})")


def _cause(ran: Ran) -> str:
    """uv's error chain in one line."""
    told = [line.strip(" ×╰├│─▶").removeprefix("error: ") for line in ran.lines if line.strip()]
    return " / ".join(told)[-400:] or f"exit status {ran.code}"
