"""Set up everything that a checkout needs; `make` runs it before every verb that needs something.

Needs a bare Python alone (no pip, no venv module), and works again and again: what is there and current is left
alone. Steps: uv, the environment `.venv`, the Pulumi engine, the language host, the plugins, and last
`.podfleet/toolchain.json`, which says where all of it is. Progress goes to stderr; an error is one line, exit 2.

    python3 tools/bootstrap.py              everything
    python3 tools/bootstrap.py --venv-only  the environment alone (checks and unit tests need no engine)
"""

import sys

NEEDED = (3, 11)

if sys.version_info < NEEDED:  # before any import of ours: an old Python could not even read those files
    found, needed = (f"{major}.{minor}" for major, minor in (sys.version_info[:2], NEEDED))
    sys.stderr.write(f"set-up: error: Python {needed} or newer is needed, {sys.executable} is Python {found}; ")
    sys.stderr.write("try `make PYTHON=python3.13`\n")
    sys.exit(2)

from provision.run import main  # noqa: E402 - after the check above

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
