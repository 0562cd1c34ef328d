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
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tools.chaos.cases import all_points
from tools.chaos.point import Point
from tools.chaos.probe import probe
from tools.chaos.runner import Plan, Ran, run_all
from tools.chaos.strike import LATER, Keys, Outcome

LEAST_POINTS = 300
REST_S = 90.0
QUICK_REST_S = 10.0
QUICK_POINTS = 60


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="podfleet-chaos-"))
    started_s = time.monotonic()
    keys = _keys()
    points = [point for point in all_points(probe(folder, keys)) if re.search(options.only, point.name)]
    if options.list:
        print("\n".join(point.name for point in points))
        return 0
    if options.quick:
        points = _spread(points, QUICK_POINTS)
    print(f"{len(points)} points without the engine, {options.jobs} at a time, in {folder}")
    plan = Plan(points, folder, keys, QUICK_REST_S if options.quick else REST_S, options.jobs)
    outcomes = run_all(plan, _show)
    return _end(outcomes, 0, options, folder, time.monotonic() - started_s)


def _end(outcomes: list[Outcome], with_engine: int, options: argparse.Namespace, folder: Path, took_s: float) -> int:
    unfired = [outcome for outcome in outcomes if not outcome.fired]
    failed = [outcome for outcome in outcomes if outcome.problems]
    if unfired:
        print(f"\nnot counted, their fault did not fire ({len(unfired)}):")
        print("\n".join(f"  {outcome.point}" for outcome in unfired))
    secrets = sum(outcome.secrets_left for outcome in outcomes)
    print(f"\n{took_s:.0f} s; {secrets} account secrets left after a destroy, for `podfleet sweep`")
    if failed:
        print(f"{len(failed)} points failed; logs in {folder}")
        for outcome in failed:
            print(f"""  make chaos ARGS="--only '{outcome.point}'\"""")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    count = len({outcome.point for outcome in outcomes if outcome.fired})
    orphans = sum(outcome.orphans for outcome in outcomes)
    worst_s = max((outcome.worst_unowned_s for outcome in outcomes), default=0.0)
    few = not options.quick and options.only == "" and count < LEAST_POINTS
    if few:
        print(f"only {count} faults fired, {LEAST_POINTS} are needed")
    print(f"chaos: {count} points ({with_engine} with the engine) · {orphans} orphans · worst unowned {worst_s:.0f} s")
    return 1 if failed or few or orphans else 0


def _show(said: Outcome | Ran) -> None:
    """A line when a point has run; another one only where the rest has shown something more."""
    outcome = said.sofar if isinstance(said, Ran) else said
    if isinstance(said, Ran):
        word = "FAIL" if outcome.problems else "ok" if outcome.fired else "unfired"
        print(f"{word:7} {outcome.took_s:5.1f} s  {outcome.point}", flush=True)
    elif any(problem.startswith(LATER) for problem in outcome.problems):
        print(f"FAIL    after the rest: {outcome.point}", flush=True)
    for problem in outcome.problems:
        if isinstance(said, Ran) or problem.startswith(LATER):
            print(f"        {problem}", flush=True)


def _spread(points: list[Point], count: int) -> list[Point]:
    """So many of them, from all parts of the list."""
    step = max(1.0, len(points) / count)
    return [points[int(number * step)] for number in range(min(count, len(points)))]


def _keys() -> Keys:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return Keys(private, public)


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
