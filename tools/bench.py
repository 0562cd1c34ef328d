"""`make bench`: how the time of `pulumi up` and `destroy` grows with the number of pods, in one run.

Two tables: few pods with all their bootstrap steps, and many that only sleep (`bench_many`). Each has ratios within its
run, since absolute times on a busy machine mean little. Results that are kept stand in docs/benchmarks.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools import bench_many
from tools.stage import Stage, free_ports

SIZES = (1, 2, 4, 8)
SETTINGS = {
    "engine": "scripted",
    "maxPods": max(SIZES),
    "maxUsdPerHour": 0,
    "maxUsdPerDay": 0,
    "absenceIntervalSeconds": 0.2,
    "pollIntervalSeconds": 0.2,
    "stopOnEmptyQueue": False,
}


def main(words: list[str]) -> None:
    """`--no-limit` leaves out the runs under 60 calls a minute, which take minutes."""
    if set(words) - {"--no-limit"}:
        raise SystemExit("usage: python -m tools.bench [--no-limit]")
    _small()
    print()
    limits = (None,) if words else (None, bench_many.LIMIT)
    print(bench_many.table(bench_many.measure(lambda line: print(line, file=sys.stderr), limits=limits)))


def _small() -> None:
    folder = Path(tempfile.mkdtemp(prefix="podfleet-bench-"))
    stage = Stage(folder, free_ports(), SETTINGS)
    try:
        stage.lay()
        stage.start_cloud()
        stage.start_queue()
        rows = [_measure(stage, pods) for pods in SIZES]
    finally:
        stage.stop_queue()
        stage.stop_cloud()
        shutil.rmtree(folder, ignore_errors=True)
    one_up_s, one_down_s = rows[0][1], rows[0][3]
    print("| pods | up | ÷ one pod | up again, no change | destroy | ÷ one pod |")
    print("|---|---|---|---|---|---|")
    for pods, up_s, again_s, down_s in rows:
        print(
            f"| {pods} | {up_s:.1f} s | {up_s / one_up_s:.2f} | {again_s:.1f} s "
            f"| {down_s:.1f} s | {down_s / one_down_s:.2f} |"
        )


def _measure(stage: Stage, pods: int) -> tuple[int, float, float, float]:
    """Seconds of: up from nothing (pods booted, configured, started), up again, destroy (drained, proven gone)."""
    _run(stage, "config", "set", "podfleet:pods", str(pods))
    up_s = _timed(lambda: _run(stage, "up", "--yes", "--skip-preview"))
    again_s = _timed(lambda: _run(stage, "up", "--yes", "--skip-preview", "--expect-no-changes"))
    down_s = _timed(lambda: _run(stage, "destroy", "--yes", "--skip-preview"))
    return pods, up_s, again_s, down_s


def _run(stage: Stage, *words: str) -> None:
    done = stage.pulumi(*words)
    if done.returncode:
        raise SystemExit(f"pulumi {' '.join(words)} failed:\n{done.stdout}")


def _timed(call: Callable[[], None]) -> float:
    started_s = time.monotonic()
    call()
    return time.monotonic() - started_s


if __name__ == "__main__":
    main(sys.argv[1:])
