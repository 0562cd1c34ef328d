"""The order of the set-up steps; called by `tools/bootstrap.py` only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from provision.engine import ensure_engine
from provision.errors import SetupError
from provision.places import Places, find_places
from provision.plugins import ensure_plugins
from provision.progress import say
from provision.stamps import only_one
from provision.toolchain import ensure_engine_folder, write_toolchain
from provision.venv import ensure_venv

ROOT = Path(__file__).resolve().parent.parent.parent
SLOW_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, 2 with one line on stderr, 130 after Ctrl-C."""
    unknown = [word for word in arguments if word != "--venv-only"]
    if unknown:
        say(f"unknown argument {unknown[0]}; the only one is --venv-only")
        return 2
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        places = find_places(ROOT, os.environ)
        with only_one(places.local / "set-up.lock", "the set-up of this checkout"):
            set_up(places, venv_only="--venv-only" in arguments)
    except SetupError as error:
        say(f"error: {error}")
        return error.exit_code
    except OSError as error:
        say(f"error: {error}")
        return SetupError.exit_code
    except KeyboardInterrupt:
        say("interrupted; nothing half-made is left, run it again")
        return 130
    if (took_s := time.monotonic() - start) > SLOW_S:
        say(f"done in {took_s:.0f} s")
    return 0


def set_up(places: Places, venv_only: bool) -> None:
    ensure_venv(places)
    if venv_only:
        return
    engine = ensure_engine(places)
    pulumi = ensure_engine_folder(places, engine)
    write_toolchain(places, engine, pulumi, ensure_plugins(places, engine))
