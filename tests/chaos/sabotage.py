"""Breaks the product in one way, runs one point, prints the verdict: `python -m tests.chaos.sabotage NAME`.

A process of its own, since it forks engines, which a process with threads (pytest's) had better not do.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from tools.chaos.account import Account
from tools.chaos.cases import at, named
from tools.chaos.point import SCALE, Fault, Point, Then, Victim
from tools.chaos.providers import Providers
from tools.chaos.strike import Keys, Outcome, Trial

from podfleet.providers.runpod.fleet import GuardCore, SweepCore, Wish
from podfleet.providers.runpod.secrets import SecretCore

SLOW_LIST = Fault("a slow list", {"op": "pods.list", "action": "delay", "delay_s": 0.01})
FIRST, TO_THREE = SCALE[:2]


@dataclass(frozen=True)
class Sabotage:
    """What is broken, where it has to show, and the words in which."""

    breaks: Callable[[], None]
    point: Point
    said: str


def _guard_ends_nothing() -> None:
    GuardCore.delete = _nothing  # type: ignore[method-assign]


def _sweep_ends_nothing() -> None:
    SweepCore.sweep = _nothing  # type: ignore[method-assign]


def _guard_is_greedy() -> None:
    update = GuardCore.update

    def greedy(core: GuardCore, wish: Wish, **more: Any) -> str:
        core._ending.end([pod for pod in core._census.now().pods if pod.uid != wish.uid], why="greed")
        return update(core, wish, **more)

    GuardCore.update = greedy  # type: ignore[method-assign]


def _secret_is_logged() -> None:
    put = SecretCore.put

    def talkative(core: SecretCore, name: str, value: str, description: str) -> str:
        structlog.get_logger().info("secret.put", value=value)
        return put(core, name, value, description)

    SecretCore.put = talkative  # type: ignore[method-assign]


def _guard_always_differs() -> None:
    diff = Providers._diff

    def restless(shell: Any, ask: Any) -> Any:
        answer = diff(shell, ask)
        return type(answer)(changes=answer.changes or ask.kind == "guard")

    Providers._diff = staticmethod(restless)  # type: ignore[method-assign, assignment]


def _nothing(*_: object, **__: object) -> None:
    """Do not do it."""


KILLED = Point(TO_THREE, at("pods.create", "after", 1, action="hold"), Then.DESTROY, Victim.BOTH)
SABOTAGES = {
    "none": Sabotage(lambda: None, KILLED, ""),
    "guard ends nothing": Sabotage(_guard_ends_nothing, KILLED, "pods of our uid are"),
    "sweep ends nothing": Sabotage(
        _sweep_ends_nothing, Point(TO_THREE, named("create-twice"), Then.UP), "pods of our uid are"
    ),
    "guard is greedy": Sabotage(_guard_is_greedy, Point(TO_THREE, SLOW_LIST, Then.UP), "foreign pods were ended"),
    "a secret is logged": Sabotage(
        _secret_is_logged, Point(FIRST, SLOW_LIST, Then.UP), "a secret stands in engine.log"
    ),
    "guard always differs": Sabotage(
        _guard_always_differs, Point(FIRST, SLOW_LIST, Then.UP), "a second up was not without a change"
    ),
}


def main(name: str) -> None:
    sabotage = SABOTAGES[name]
    sabotage.breaks()
    with tempfile.TemporaryDirectory() as folder:
        outcome = _run(sabotage.point, Path(folder))
    sys.stdout.write(f"fired {outcome.fired}, {outcome.orphans} orphans: {' | '.join(outcome.problems)}\n")


def _run(point: Point, folder: Path) -> Outcome:
    account = Account(folder / "account")
    account.open()
    try:
        trial = Trial(point, account, folder / "point", 1, Keys.made())
        trial.run()
        return trial.judge_late()
    finally:
        account.close()


if __name__ == "__main__":
    main(sys.argv[1])
