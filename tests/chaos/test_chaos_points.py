"""A spread of all crash points, as `make chaos` runs them in full; and that a run sees what it is there to see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.chaos.sabotage import SABOTAGES

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[2]
LAST_LINE = re.compile(r"chaos: (\d+) points \(0 with the engine\) · 0 orphans · worst unowned \d+ s")


@pytest.mark.timeout(900)
def test_a_spread_of_all_points_leaves_no_orphan() -> None:
    done = run("tools.chaos", "--quick", "--without-engine")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert found, done.stdout
    assert int(found[1]) >= 50
    assert "no rule broken" in done.stdout


@pytest.mark.parametrize("name", SABOTAGES)
def test_what_is_broken_is_seen(name: str) -> None:
    done = run("tests.chaos.sabotage", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fired True, ")
    _, _, problems = done.stdout.strip().partition(": ")
    if expected := SABOTAGES[name].said:
        assert expected in problems
    else:
        assert (problems, "0 orphans" in done.stdout) == ("", True)


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
