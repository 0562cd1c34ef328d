"""The lock files: renew them (`make lock`, needs a package index), or check that they are current (no network).

A lock is current when `requirements/inputs.json` holds the hash of what it was made from: the dependencies written in
the two pyproject files, or an `.in` file. Locks hold hashes and no index addresses, so they work behind any mirror.
Run with the environment's Python: `.venv/bin/python tools/locks.py renew|check`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from provision.errors import SetupError
from provision.index import Index, settings
from provision.stamps import digest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
INPUTS = FOLDER / "inputs.json"
COMPILE = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--quiet"]
OURS = ["--no-emit-package", "podfleet-node", "--no-emit-package", "podfleet"]
SOURCES = {
    "dev.lock": [*OURS, "--group", "dev", "pyproject.toml", "node/pyproject.toml", "--extra", "demo"],
    "node-demo.lock": ["node/pyproject.toml", "--extra", "demo"],  # the image's
    "node-build.lock": ["requirements/node-build.in"],
    "conformance.lock": ["requirements/conformance.in"],
}
UV_WHEELS = (  # the platforms that a checkout can be set up on
    r"manylinux_2_17_x86_64\b",
    r"musllinux_1_1_x86_64\b",
    r"manylinux_2_17_aarch64\b",
    r"macosx_\d+_\d+_x86_64\b",
    r"macosx_\d+_\d+_arm64\b",
)
UV_HEADER = """\
# The uv that sets up a checkout before there is any environment, one wheel per platform. Made by `make lock`,
# read by tools/provision/uv.py.
"""


def main(arguments: list[str]) -> int:
    verbs = {"renew": renew, "check": check}
    if len(arguments) != 1 or arguments[0] not in verbs:
        print("usage: locks.py renew|check", file=sys.stderr)
        return 2
    try:
        return verbs[arguments[0]]()
    except SetupError as error:
        print(f"locks: error: {error}", file=sys.stderr)
        return error.exit_code


def renew() -> int:
    env = {**settings(os.environ).for_uv(), **os.environ}
    uv = Path(sys.executable).parent / "uv"
    for name, source in SOURCES.items():
        print(f"locks: {name}", file=sys.stderr)
        output = ["--output-file", str((FOLDER / name).relative_to(ROOT)), "--custom-compile-command", "make lock"]
        command = [str(uv), "pip", "compile", *COMPILE, *source, *output]
        done = subprocess.run(command, cwd=ROOT, env=env, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SetupError(f"{name} could not be made, see uv's words above")
    print("locks: bootstrap.lock", file=sys.stderr)
    (FOLDER / "bootstrap.lock").write_text(uv_lock(locked_uv(), Index(os.environ)))
    INPUTS.write_text(json.dumps(inputs(ROOT), indent=2) + "\n")
    return 0


def check() -> int:
    recorded, found = json.loads(INPUTS.read_text()), inputs(ROOT)
    stale = [name for name in found if recorded.get(name) != found[name]]
    if f"uv=={locked_uv()}\n" not in (FOLDER / "bootstrap.lock").read_text():
        stale.append("bootstrap.lock")
    for name in stale:
        print(f"locks: requirements/{name} is not current: run `make lock`", file=sys.stderr)
    return 1 if stale else 0


def inputs(root: Path) -> dict[str, str]:
    """Lock name -> hash of all that it is made from; the settings of linters and tests in pyproject do not count."""
    return {
        "dev.lock": digest(*(dependencies(root / name) for name in ("pyproject.toml", "node/pyproject.toml"))),
        "node-demo.lock": digest(dependencies(root / "node/pyproject.toml")),
        "node-build.lock": digest(root / "requirements" / "node-build.in"),
        "conformance.lock": digest(root / "requirements" / "conformance.in"),
    }


def dependencies(project: Path) -> str:
    read = tomllib.loads(project.read_text())
    table = read["project"]
    parts = [table.get(key) for key in ("name", "requires-python", "dependencies", "optional-dependencies")]
    return json.dumps([*parts, read.get("dependency-groups")], sort_keys=True)


def locked_uv() -> str:
    found = re.search(r"^uv==(\S+)", (FOLDER / "dev.lock").read_text(), re.MULTILINE)
    if not found:
        raise SetupError("requirements/dev.lock has no uv")
    return found[1]


def uv_lock(version: str, index: Index) -> str:
    """The text of bootstrap.lock. Each wheel is fetched for its hash: not every index gives hashes in its listing."""
    files = index.files("uv")
    names = [name for wanted in UV_WHEELS for name in files if re.search(wanted, name) and f"uv-{version}-" in name]
    rows = [f"{name} sha256:{hashlib.sha256(index.get(files[name])).hexdigest()}" for name in dict.fromkeys(names)]
    return f"{UV_HEADER}uv=={version}\n" + "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
