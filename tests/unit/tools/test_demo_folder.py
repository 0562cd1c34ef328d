"""The demo empties its folder first: only one that is a demo's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setup_fakes import PROJECT


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "thesis.txt").write_text("two years of work")
    command = [sys.executable, "-m", "tools.demo", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "holds something that is not of a demo" in done.stderr
    assert (tmp_path / "logs" / "thesis.txt").exists()
