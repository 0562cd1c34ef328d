"""Points with the real Pulumi engine and the real `podfleet up` and `destroy` after it, one at a time, on a few stages.

What the stand-in engine of `engine` imitates is here itself: state file, locks, launcher, healing. A stage rests after
a point as an account does, while the points go on elsewhere. Called by `__main__`; reuses the words of `tests.e2e`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.conftest import SETTINGS
from tests.e2e.fleet import DESTROY as DESTROY_WORDS
from tests.e2e.fleet import PREFIX, UP, slot_of
from tools.chaos.account import wait_for
from tools.chaos.driver import alive
from tools.chaos.point import Point, Victim
from tools.chaos.program import Size
from tools.chaos.scene import Scene
from tools.chaos.strike import LATER, Outcome
from tools.chaos.verdict import LIVE, Books, Canaries, foreign_problems, leak_problems, unowned_problems
from tools.stage import STACK, Stage, free_ports

STAGES = 4
LIMIT_S = 300.0
HIT_S = 120.0
LOOK_AGAIN_S = 8
LAUNCHERS = (b"podfleet.launcher", b"pulumi.dynamic")
QUICK = {**SETTINGS, "bootstrap": "none", "reconcileSeconds": LOOK_AGAIN_S}


@dataclass
class EngineTrial:
    """A point on a scene."""

    point: Point
    scene: Scene
    canaries: Canaries
    problems: list[str] = field(default_factory=list)
    fired: bool = False
    took_s: float = 0.0
    _before: Books = field(default_factory=lambda: Books({}))

    def run(self) -> None:
        started_s = time.monotonic()
        try:
            self._prepare()
            self._strike()
            self._follow_up()
        except (AssertionError, TimeoutError) as error:
            self.problems.append(" ".join(str(error).split())[-600:])
        self.took_s = time.monotonic() - started_s

    def judge_late(self) -> Outcome:
        """After the rest."""
        pods = self.scene.all_pods()
        worst_s = self.scene.books().since(self._before)
        late = [*self._judged(pods), *foreign_problems(pods, self.scene.foreign), *unowned_problems(worst_s)]
        self.problems += [f"{LATER}{problem}" for problem in late if problem not in self.problems]
        orphans = sum(pod["id"] not in self.scene.known() for pod in self._ours(pods))
        return replace(self.outcome(), orphans=orphans, worst_unowned_s=worst_s)

    def outcome(self) -> Outcome:
        return Outcome(self.point.name, self.fired, tuple(self.problems), took_s=self.took_s)

    # The steps

    def _prepare(self) -> None:
        (size,) = self.point.update.before
        if self.scene.size != size:
            self._write(size)
            self.scene.fleet.up()
        self.scene.size = size

    def _strike(self) -> None:
        scene, point, fleet = self.scene, self.point, self.scene.fleet
        since = fleet.last_event()
        if point.update.to:
            self._write(point.update.to)
        if point.later:
            fleet.up()
        fault = self._arm()
        if not point.later:
            words = UP if point.update.to else DESTROY_WORDS
            engine = fleet.start(*words)
            try:
                self._kill(engine, fault, since)
                engine.wait(LIMIT_S)
            finally:
                if engine.poll() is None:
                    engine.kill()
                    engine.wait()
        if point.ends_in:
            wait_for(self._has_ended, HIT_S, 0.05)
        self.fired = fleet.was_hit(fault, since) or self._counted(fault)
        scene.fleet.release()
        scene.size = None

    def _kill(self, engine: subprocess.Popen[str], fault: str, since: int) -> None:
        victim, scene = self.point.victim, self.scene
        if victim is Victim.NOBODY:
            return
        if victim is Victim.CLOUD:
            pid = scene.cloud_pid()
            wait_for(lambda: not alive(pid) or engine.poll() is not None, HIT_S, 0.05)
            if not alive(pid):
                self.fired = True
                scene.start_cloud()
            return
        wait_for(lambda: scene.fleet.was_hit(fault, since) or engine.poll() is not None, HIT_S, 0.05)
        self._look_for_secrets()
        if victim is Victim.PROVIDER:
            for launcher in self._launchers():
                os.kill(launcher, signal.SIGKILL)
        else:
            engine.kill()
            engine.wait()
        if not self.point.looks:
            scene.fleet.release(fault)

    def _follow_up(self) -> None:
        """`podfleet up` or `destroy`, and what the state knows is told to the ledger as it grows."""
        scene = self.scene
        scene.own()
        self._before = scene.books()
        log = scene.stage.logs / "follow-up.log"
        word = str(self.point.then)
        command = [str(Path(sys.executable).parent / "podfleet"), word, STACK]
        running = scene.stage.spawn(command, log=log)
        self._watched(running)
        if running.returncode:
            self.problems.append(f"podfleet {word} failed ({running.returncode}): {_last_lines(log)}")
        scene.size = self.point.wanted
        pods = scene.all_pods()
        self.problems += [*self._judged(pods), *foreign_problems(pods, scene.foreign)]
        self.problems += leak_problems(self.canaries, scene.state) + leak_problems(self.canaries, scene.stage.logs)

    def _watched(self, running: subprocess.Popen[str]) -> None:
        known: list[str] = []
        end_s = time.monotonic() + LIMIT_S
        while running.poll() is None:
            if time.monotonic() > end_s:
                running.kill()
                running.wait()
                raise TimeoutError(f"podfleet {self.point.then} did not end within {LIMIT_S:.0f} s")
            if (now := self.scene.known()) != known:
                known = now
                self.scene.own()
                self._look_for_secrets()
            time.sleep(0.1)
        self.scene.own()

    def _look_for_secrets(self) -> None:
        """While the engine and its children run."""
        seen = [f"a secret stands in the arguments of process {pid}" for pid in self.canaries.in_processes()]
        self.problems += [problem for problem in seen if problem not in self.problems]

    # What they need

    def _judged(self, pods: Sequence[Mapping[str, Any]]) -> list[str]:
        mine = self._ours(pods)
        wanted = list(self.point.wanted.slots) if self.point.wanted else []
        problems = []
        slots = sorted(slot_of(dict(pod)) for pod in mine)
        if slots != wanted:
            problems.append(f"pods of our uid are in {slots}, wanted are {wanted}")
        if dead := [f"{pod['name']} {pod['status']}" for pod in mine if pod["status"] not in LIVE]:
            problems.append(f"not alive: {dead}")
        known, there = set(self.scene.known()), {pod["id"] for pod in mine}
        if known != there:
            problems.append(f"the state knows {sorted(known)}, the cloud has {sorted(there)}")
        return problems

    def _ours(self, pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        uid = self.scene.uid
        return [
            pod
            for pod in pods
            if pod["status"] != "TERMINATED"
            and pod["name"].startswith(PREFIX)
            and (pod.get("env") or {}).get("PODFLEET_UID") == uid
        ]

    def _has_ended(self) -> bool:
        pods = (pod for pod in self.scene.all_pods() if pod["name"].startswith(f"{PREFIX}slot-"))
        return any(pod["status"] == self.point.ends_in for pod in pods)

    def _arm(self) -> str:
        order = dict(self.point.fault.order)
        if self.point.fault.strikes_pods:
            order["name_contains"] = f"{PREFIX}slot-"
        return self.scene.fleet.fault(**order)

    def _counted(self, fault_id: str) -> bool:
        faults = self.scene.stage.cloud("/_emu/faults")["faults"]
        return any(fault["id"] == fault_id and fault["hits"] for fault in faults)

    def _launchers(self) -> list[int]:
        mine, found = str(self.scene.stage.folder).encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and any(word in (entry / "cmdline").read_bytes() for word in LAUNCHERS)
                    and mine in (entry / "environ").read_bytes()
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def _write(self, size: Size) -> None:
        self.scene.write(size, None if self.point.defaults else LOOK_AGAIN_S)


def run_engine_points(
    points: Sequence[Point], folder: Path, rest_s: float, show: Callable[[EngineTrial, bool], None]
) -> list[Outcome]:
    """One after another; `show` hears of each when it has run (False) and when it has rested (True)."""
    return list(_Rotation(folder, rest_s, show).all(points))


@dataclass
class _Rotation:
    """The stages in turn: one is at work, the others rest."""

    folder: Path
    rest_s: float
    show: Callable[[EngineTrial, bool], None]
    scenes: list[Scene] = field(default_factory=list)
    resting: list[EngineTrial] = field(default_factory=list)
    canaries: dict[int, Canaries] = field(default_factory=dict)
    made: int = 0

    def all(self, points: Sequence[Point]) -> Iterator[Outcome]:
        try:
            for point in points:
                yield from self._judge(all_of_them=False)
                trial = self._trial(point)
                trial.run()
                self.show(trial, False)
                trial.scene.rests_until_s = time.monotonic() + self.rest_s
                self.resting.append(trial)
            yield from self._judge(all_of_them=True)
        finally:
            for scene in self.scenes:
                scene.close()

    def _judge(self, *, all_of_them: bool) -> Iterator[Outcome]:
        """The trials that have rested; waits for the first one where no stage is free, or for all."""
        while self.resting and (all_of_them or len(self.resting) == STAGES):
            trial = self.resting.pop(0)
            time.sleep(max(0.0, trial.scene.rests_until_s - time.monotonic()))
            outcome = trial.judge_late()
            self.show(trial, True)
            if outcome.problems:
                trial.scene.close()
                self.scenes.remove(trial.scene)
            yield outcome

    def _trial(self, point: Point) -> EngineTrial:
        busy = {id(trial.scene) for trial in self.resting}
        free = [scene for scene in self.scenes if id(scene) not in busy]
        scene = free[0] if free else self._new()
        return EngineTrial(point, scene, self.canaries[id(scene)])

    def _new(self) -> Scene:
        self.made += 1
        stage = Stage(self.folder / f"stage-{self.made}", free_ports(), QUICK)
        scene = Scene(stage)
        scene.open()
        self.scenes.append(scene)
        self.canaries[id(scene)] = scene.canaries()
        return scene


def _last_lines(log: Path) -> str:
    return " | ".join(log.read_text().splitlines()[-4:])
