"""A spread of all crash points, as `make chaos` runs them in full; and that a run sees what it is there to see."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tools.chaos.account import Account
from tools.chaos.cases import at, named
from tools.chaos.point import SCALE, Fault, Point, Then, Victim
from tools.chaos.providers import Providers
from tools.chaos.strike import Keys, Outcome, Trial

from podfleet.providers.runpod.fleet import GuardCore, SweepCore, Wish
from podfleet.providers.runpod.secrets import SecretCore

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[2]
LAST_LINE = re.compile(r"chaos: (\d+) points \(0 with the engine\) · 0 orphans · worst unowned \d+ s")
TO_THREE = SCALE[1]
TWICE = named("create-twice", 1)
FIRST_LIST = Fault("a slow list", {"op": "pods.list", "action": "delay", "delay_s": 0.01})
Judge = Callable[[Point], Outcome]


@pytest.mark.timeout(900)
def test_a_spread_of_all_points_leaves_no_orphan(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.chaos", "--quick", "--without-engine"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert found, done.stdout
    assert int(found[1]) >= 50
    assert "no rule broken" in done.stdout


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Runs a point without the rest. What a test has broken in this process is broken in the engine's, too."""
    account = Account(tmp_path / "account")
    account.open()
    numbers = iter(range(1, 100))

    def run(point: Point) -> Outcome:
        trial = Trial(point, account, tmp_path / "point", next(numbers), Keys.made())
        trial.run()
        return trial.judge_late()

    yield run
    account.close()


def problems(outcome: Outcome) -> str:
    assert outcome.fired
    return " | ".join(outcome.problems)


def test_a_guard_that_ends_nothing_is_seen(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Point(TO_THREE, at("pods.create", "after", 1, action="hold"), Then.DESTROY, Victim.BOTH)
    assert problems(judge(killed)) == ""
    monkeypatch.setattr(GuardCore, "delete", _nothing)
    outcome = judge(killed)
    assert "pods of our uid are" in problems(outcome)
    assert outcome.orphans >= 1


def test_a_sweep_that_ends_nothing_is_seen(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepCore, "sweep", _nothing)
    assert "pods of our uid are" in problems(judge(Point(TO_THREE, TWICE, Then.UP)))


def test_an_ended_pod_of_somebody_else_is_seen(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    update = GuardCore.update

    def greedy(core: GuardCore, wish: Wish, **more: Any) -> str:
        core._ending.end([pod for pod in core._census.now().pods if pod.uid != wish.uid], why="greed")
        return update(core, wish, **more)

    monkeypatch.setattr(GuardCore, "update", greedy)
    assert "foreign pods were ended" in problems(judge(Point(TO_THREE, FIRST_LIST, Then.UP)))


def test_a_secret_in_a_log_is_seen(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    put = SecretCore.put

    def talkative(core: SecretCore, name: str, value: str, description: str) -> str:
        structlog.get_logger().info("secret.put", value=value)
        return put(core, name, value, description)

    monkeypatch.setattr(SecretCore, "put", talkative)
    assert "a secret stands in engine.log" in problems(judge(Point(SCALE[0], FIRST_LIST, Then.UP)))


def test_an_up_that_changes_something_each_time_is_seen(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    diff = Providers._diff

    def restless(shell: Any, ask: Any) -> Any:
        answer = diff(shell, ask)
        return type(answer)(changes=answer.changes or ask.kind == "guard")

    monkeypatch.setattr(Providers, "_diff", staticmethod(restless))
    assert "a second up was not without a change" in problems(judge(Point(SCALE[0], FIRST_LIST, Then.UP)))


def _nothing(*_: object, **__: object) -> None:
    """Do not do it."""
