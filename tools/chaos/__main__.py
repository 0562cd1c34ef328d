"""`make chaos`: crash points without and with the real engine, and the stateful property test; one line at the end.

    python -m tools.chaos [--quick] [--only PATTERN] [--without-engine] [-j N]

Exit status 1 when a point fails, or when fewer than 300 faults were counted as fired in a full run.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos import machine
from tools.chaos.cases import all_points
from tools.chaos.engine_cases import engine_points
from tools.chaos.engine_points import EngineTrial, run_engine_points
from tools.chaos.point import Point
from tools.chaos.probe import probe
from tools.chaos.runner import Plan, Ran, run_all
from tools.chaos.strike import LATER, Keys, Outcome

LEAST_POINTS = 300
REST_S = 90.0
QUICK_REST_S = 10.0
QUICK_POINTS = 60
QUICK_ENGINE_POINTS = 4
LEAST_ENGINE_POINTS = 60
LEAST_STEPS = 2000
STEPS_EACH = 30
HISTORIES, QUICK_HISTORIES = 120, 6


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="podfleet-chaos-"))
    started_s = time.monotonic()
    rest_s = QUICK_REST_S if options.quick else REST_S
    keys = Keys.made()
    driven, engine = _chosen(options, folder, keys)
    if options.list:
        print("\n".join(point.name for point in (*driven, *engine)))
        return 0
    print(f"{len(driven)} points without the engine, {options.jobs} at a time; {len(engine)} with it; in {folder}")
    outcomes = run_all(Plan(driven, folder, keys, rest_s, options.jobs), _show_outcome)
    with_engine = run_engine_points(engine, folder, rest_s, _show_trial)
    broken = _histories(options, folder)
    print(f"\n{time.monotonic() - started_s:.0f} s")
    return _end(outcomes, with_engine, options, folder) or broken


def _chosen(options: argparse.Namespace, folder: Path, keys: Keys) -> tuple[list[Point], list[Point]]:
    """The points without the engine, and those with it."""
    driven = [point for point in all_points(probe(folder, keys)) if re.search(options.only, point.name)]
    engine = [point for point in engine_points() if re.search(options.only, point.name)]
    if options.quick:
        quick = [point for point in driven if not point.defaults]
        driven, engine = _spread(quick, QUICK_POINTS), _spread(engine, QUICK_ENGINE_POINTS)
    return driven, [] if options.without_engine else engine


def _histories(options: argparse.Namespace, folder: Path) -> int:
    """The stateful property test, where nothing else was asked for; 1 when it broke."""
    if options.only:
        return 0
    count = QUICK_HISTORIES if options.quick else HISTORIES
    try:
        steps = machine.run(folder / "machine", histories=count, steps_each=STEPS_EACH)
    except AssertionError:
        traceback.print_exc()
        return 1
    print(f"property: {steps} steps in {count} random histories, no rule broken")
    return 1 if not options.quick and steps < LEAST_STEPS else 0


def _end(outcomes: list[Outcome], with_engine: list[Outcome], options: argparse.Namespace, folder: Path) -> int:
    both = [*outcomes, *with_engine]
    unfired = [outcome for outcome in both if not outcome.fired]
    failed = [outcome for outcome in both if outcome.problems]
    if unfired:
        print(f"not counted, their fault did not fire ({len(unfired)}):")
        print("\n".join(f"  {outcome.point}" for outcome in unfired))
    if failed:
        print(f"{len(failed)} points failed; logs in {folder}")
        for outcome in failed:
            print(f"""  make chaos ARGS="--only '{outcome.point}'\"""")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    count, engine = _fired(both), _fired(with_engine)
    orphans = sum(outcome.orphans for outcome in both)
    worst_s = max((outcome.worst_unowned_s for outcome in both), default=0.0)
    few = "" if options.quick or options.only else _too_few(count, engine, options)
    if few:
        print(few)
    print(f"chaos: {count} points ({engine} with the engine) · {orphans} orphans · worst unowned {worst_s:.0f} s")
    return 1 if failed or few or orphans else 0


def _too_few(count: int, engine: int, options: argparse.Namespace) -> str:
    if count < LEAST_POINTS:
        return f"only {count} faults fired, {LEAST_POINTS} are needed"
    if engine < LEAST_ENGINE_POINTS and not options.without_engine:
        return f"only {engine} faults fired with the engine, {LEAST_ENGINE_POINTS} are needed"
    return ""


def _fired(outcomes: list[Outcome]) -> int:
    return len({outcome.point for outcome in outcomes if outcome.fired})


def _show_outcome(said: Outcome | Ran) -> None:
    if isinstance(said, Ran):
        _show(said.sofar, rested=False)
    else:
        _show(said, rested=True)


def _show_trial(trial: EngineTrial, rested: bool) -> None:
    _show(trial.outcome(), rested=rested)


def _show(outcome: Outcome, *, rested: bool) -> None:
    """A line when a point has run; another one only where the rest has shown something more."""
    if not rested:
        word = "FAIL" if outcome.problems else "ok" if outcome.fired else "unfired"
        print(f"{word:7} {outcome.took_s:5.1f} s  {outcome.point}", flush=True)
    elif any(problem.startswith(LATER) for problem in outcome.problems):
        print(f"FAIL    after the rest: {outcome.point}", flush=True)
    for problem in outcome.problems:
        if not rested or problem.startswith(LATER):
            print(f"        {problem}", flush=True)


def _spread(points: list[Point], count: int) -> list[Point]:
    """So many of them, from all parts of the list."""
    step = max(1.0, len(points) / count)
    return [points[int(number * step)] for number in range(min(count, len(points)))]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_POINTS} points, watched for {QUICK_REST_S:.0f} s")
    parser.add_argument("--only", default="", metavar="PATTERN", help="points whose name this regular expression finds")
    parser.add_argument("--without-engine", action="store_true", help="not the points with the real engine")
    parser.add_argument("--list", action="store_true", help="print the points' names")
    parser.add_argument("-j", dest="jobs", type=int, default=2, metavar="N", help="so many points at a time")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
