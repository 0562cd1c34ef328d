"""`python -m podfleet.launcher ADDRESS-OF-THE-ENGINE`, started by the shell script beside it."""

from __future__ import annotations

import sys

from podfleet.errors import ConfigError
from podfleet.launcher.host import serve

if __name__ == "__main__":
    try:
        sys.exit(serve())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
