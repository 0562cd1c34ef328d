"""Ctrl-C in the demo, at any moment: everything that was made is destroyed, and it says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.test_demo import pod_processes
from tools.stage import CHECKOUT

pytestmark = [pytest.mark.engine, pytest.mark.slow]
LIMIT_S = 120


@pytest.mark.parametrize("words", ["$ pulumi preview", "tailnet-key created", "transcripts arrive"])
def test_an_interrupt_leaves_nothing(words: str, tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    folder = tmp_path / "run"
    command = [sys.executable, "-u", "-m", "tools.demo", "--folder", str(folder)]
    with log.open("w") as output:
        demo = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            rc = interrupt_at(demo, log, words)
        finally:
            demo.kill()
    last = log.read_text().strip().splitlines()[-2]
    assert rc == 1
    assert last.startswith("podfleet demo: interrupted · 0 pods, 0 keys, 0 nodes left"), log.read_text()[-2000:]
    assert last.endswith("0 jobs lost")
    assert pod_processes(folder / "cloud") == {}


def interrupt_at(demo: subprocess.Popen[bytes], log: Path, words: str) -> int:
    """Ctrl-C when these words are shown, and once more a second later: an impatient person. Answers the exit status."""
    end_s = time.monotonic() + LIMIT_S
    while words not in log.read_text():
        assert demo.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end_s, f"never said: {words}"
        time.sleep(0.05)
    demo.send_signal(signal.SIGINT)
    time.sleep(1)
    demo.send_signal(signal.SIGINT)
    return demo.wait(LIMIT_S)
