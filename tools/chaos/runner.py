"""Runs points side by side: worker processes, each with a few accounts, a point at a time.

A worker has no threads, since it forks engines. It takes a point, strikes, and lets the account rest while it takes
the next one on the same account or on another. Called by `__main__`.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tools.chaos.account import POINTS_PER_ACCOUNT, Account
from tools.chaos.point import Point, Victim
from tools.chaos.strike import Keys, Outcome, Trial

ACCOUNTS = 24  # of all workers together: some 60 MB each
NO_MORE = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What all workers need to know."""

    points: Sequence[Point]
    folder: Path
    keys: Keys
    rest_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A point was run and now rests: what is known so far."""

    sofar: Outcome


def run_all(plan: Plan, show: Callable[[Outcome | Ran], None]) -> list[Outcome]:
    """Every point once; `show` hears of each when it has run, and when it has rested."""
    fork = multiprocessing.get_context("fork")
    workers = [fork.Pipe() for _ in range(plan.workers)]
    processes = [fork.Process(target=_work, args=(plan, number, theirs)) for number, (_, theirs) in enumerate(workers)]
    for process in processes:
        process.start()
    for _, theirs in workers:
        theirs.close()
    outcomes = list(_served([ours for ours, _ in workers], iter(range(len(plan.points))), show))
    for process in processes:
        process.join()
    missing = {point.name for point in plan.points} - {outcome.point for outcome in outcomes}
    return outcomes + [Outcome(name, fired=False, problems=("its worker died",)) for name in sorted(missing)]


def _served(
    workers: list[Connection], indexes: Iterator[int], show: Callable[[Outcome | Ran], None]
) -> Iterator[Outcome]:
    """Give each worker that asks the next point, until all have hung up."""
    open_ones: list[Connection] = list(workers)
    while open_ones:
        for ready in wait(open_ones):
            if not isinstance(ready, Connection):
                continue
            try:
                said = ready.recv()
            except EOFError:
                open_ones.remove(ready)
                continue
            if isinstance(said, Outcome | Ran):
                show(said)
            if isinstance(said, Outcome):
                yield said
            elif not isinstance(said, Ran):
                ready.send(next(indexes, NO_MORE))


def _work(plan: Plan, number: int, master: Connection) -> None:
    worker = _Worker(plan, number, master)
    try:
        worker.run()
    except Exception:  # noqa: BLE001 - the outermost loop of the process
        traceback.print_exc()
    finally:
        worker.close()
        master.close()


@dataclass
class _Batch:
    """An account, and the trials that rest on it."""

    account: Account
    trials: list[Trial] = field(default_factory=list)

    def due_s(self, rest_s: float) -> float:
        return max(trial.ended_s for trial in self.trials) + rest_s


class _Worker:
    def __init__(self, plan: Plan, number: int, master: Connection) -> None:
        self._plan = plan
        self._folder = plan.folder / f"worker-{number}"
        self._number = number
        self._master = master
        self._filling: dict[bool, _Batch] = {}
        self._resting: list[_Batch] = []
        self._free: dict[bool, list[Account]] = {True: [], False: []}
        self._opened: list[Account] = []

    def run(self) -> None:
        while (index := self._next()) is not NO_MORE:
            point = self._plan.points[index]
            batch = self._batch(point.victim is Victim.CLOUD)
            trial = Trial(point, batch.account, self._folder / f"point-{index}", index, self._plan.keys)
            trial.run()
            self._master.send(Ran(trial.outcome()))
            batch.trials.append(trial)
            if len(batch.trials) == POINTS_PER_ACCOUNT:
                self._resting.append(self._filling.pop(batch.account.kept))
            self._judge_due()
        self._resting += self._filling.values()
        while self._resting:
            self._sleep_until_due()
            self._judge_due()

    def close(self) -> None:
        for account in self._opened:
            account.close()
            shutil.rmtree(account.folder, ignore_errors=True)

    def _next(self) -> int | None:
        self._master.send("ready")
        index: int | None = self._master.recv()
        return index

    def _batch(self, kept: bool) -> _Batch:
        if kept not in self._filling:
            self._filling[kept] = _Batch(self._account(kept))
        return self._filling[kept]

    def _account(self, kept: bool) -> Account:
        """A cleared one, a new one, or the next that has rested."""
        while not self._free[kept] and len(self._opened) >= max(2, ACCOUNTS // self._plan.workers):
            self._sleep_until_due()
            self._judge_due()
            if not self._free[kept] and self._free[not kept]:  # make room for one of this kind
                gone = self._free[not kept].pop()
                gone.close()
                self._opened.remove(gone)
        if self._free[kept]:
            return self._free[kept].pop()
        account = Account(self._folder / f"account-{len(self._opened)}-{time.monotonic_ns()}", kept=kept)
        account.open()
        self._opened.append(account)
        return account

    def _sleep_until_due(self) -> None:
        first_s = min(batch.due_s(self._plan.rest_s) for batch in self._resting)
        time.sleep(max(0.0, first_s - time.monotonic()))

    def _judge_due(self) -> None:
        now_s = time.monotonic()
        for batch in [each for each in self._resting if each.due_s(self._plan.rest_s) <= now_s]:
            self._resting.remove(batch)
            for trial in batch.trials:
                self._master.send(trial.judge_late())
            batch.account.clear()
            self._free[batch.account.kept].append(batch.account)
