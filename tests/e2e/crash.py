"""Kill the engine at a named point, clean up as docs/operating.md says, and look at what the cloud lists.

A point is where the engine's work is when it dies, made exact by a fault that holds one request of the emulator; the
emulator's log proves that the point was reached. Used by the two test files of the crash matrix.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.e2e.audio import silence
from tests.e2e.fleet import UP, Fleet

LIMIT_S = 90.0
LONG_AUDIO_S = 60
Fault = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """`before` sizes the fleet before the engine starts, `change` is the config that it is to bring about.

    `holds` are planted in turn: each later one when the one before was hit, which is then released; the engine is
    killed at the last. `freeze` stops the engine before the last hold is released, so that the answer reaches the
    provider and never the state.
    """

    name: str
    holds: tuple[Fault, ...]
    before: int = 0
    change: dict[str, Any] = field(default_factory=lambda: {"pods": 2})
    freeze: bool = False
    ssh: str = ""
    settings: dict[str, Any] = field(default_factory=lambda: {"bootstrap": "none"})

    def __str__(self) -> str:
        return self.name


def hold(op: str, phase: str, nth: int = 1, **more: object) -> Fault:
    """The `nth` such request waits, before it is committed or before its answer is sent."""
    return {"op": op, "phase": phase, "action": "hold", "nth": nth, **more}


def crash(fleet: Fleet, point: Point, stop: signal.Signals = signal.SIGKILL) -> int:
    """Bring the fleet to the point and stop the engine there; answers the size that was being brought about."""
    fleet.config(**point.settings, pods=point.before)
    if point.before:
        fleet.up()
    if point.ssh:
        fleet.add_job(silence(LONG_AUDIO_S), "long")
        _until(lambda: any(job["status"] == "running" for job in fleet.jobs()), "a job is at work")
    fleet.config(**point.change)
    since = fleet.last_event()
    fault = fleet.fault(**point.holds[0]) if point.holds else ""
    engine = fleet.start(*UP)
    try:
        _until(lambda: _reached(fleet, point, fault, since), f"{point.name} was hit", engine.poll)
        for hold in point.holds[1:]:
            following = fleet.fault(**hold)
            fleet.release(fault)
            fault = following
            _until(lambda: fleet.was_hit(fault, since), f"{point.name}: {hold['op']} was hit", engine.poll)  # noqa: B023
        if point.freeze:
            _freeze(fleet, engine.pid, fault, since)
        engine.send_signal(stop)
        if stop is signal.SIGTERM:
            fleet.release()
        engine.wait(LIMIT_S)
    finally:
        if engine.poll() is None:
            engine.kill()
            engine.wait()
        fleet.end_leftovers()
        fleet.release()
    return int(point.change.get("pods", point.before))


def recover_by_up(fleet: Fleet, size: int) -> None:
    """`pulumi cancel --yes`, then `up`: the pods are those that were wanted."""
    fleet.stage.pulumi("cancel", "--yes")
    fleet.up()
    assert fleet.slots() == [f"slot-{number:02d}" for number in range(1, size + 1)]
    assert len(fleet.pods()) == size


def recover_by_destroy(fleet: Fleet) -> None:
    """`pulumi cancel --yes`, then `destroy`: no pod of ours is left."""
    fleet.stage.pulumi("cancel", "--yes")
    fleet.destroy()
    assert fleet.pods() == []


def _reached(fleet: Fleet, point: Point, fault: str, since: int) -> bool:
    if point.ssh:
        return any(event["kind"] == "ssh.exec" and point.ssh in event["command"] for event in fleet.events(since))
    return fleet.was_hit(fault, since)


def _freeze(fleet: Fleet, pid: int, fault: str, since: int) -> None:
    """The engine stands still; the held answer goes to the provider, which can no longer tell the engine."""
    os.kill(pid, signal.SIGSTOP)
    fleet.release(fault)
    _until(
        lambda: any(
            event["kind"] == "request" and event["op"] == "pods.create" and event["status"] == 201
            for event in fleet.events(since)
        ),
        "the answer was sent",
    )


def _until(condition: Callable[[], bool], what: str, ended: Callable[[], int | None] = lambda: None) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if ended() is not None:
            pytest.fail(f"the engine ended before: {what}")
        if time.monotonic() > end_s:
            pytest.fail(f"not within {LIMIT_S:.0f} s: {what}")
        time.sleep(0.05)
