"""The real engine, the real node, the stand-in cloud: one stage per test file, emptied between tests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet
from tools.stage import Stage, free_ports

SETTINGS: dict[str, Any] = {
    "engine": "scripted",
    "pods": 0,
    "maxPods": 6,
    "drainDeadlineSeconds": 20,
    "absenceIntervalSeconds": 0.2,
    "pollIntervalSeconds": 0.2,
    "createRoundWaitSeconds": 0.2,
    "stopOnEmptyQueue": False,
    "reachableDeadlineMinutes": 1,
}


@pytest.fixture(scope="module")
def running_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Cloud, queue server and a stack, all on free ports. Skips nothing: the engine is part of the set-up."""
    folder = tmp_path_factory.mktemp("stage")
    stage = Stage(folder, free_ports(), SETTINGS)
    stage.lay()
    stage.start_cloud()
    stage.start_queue()
    try:
        stage.cloud(
            "/_emu/settings", "PATCH", json={"boot_s": 0.1, "ssh_s": 0.0, "restart_backoff_s": 0.2, "grace_s": 3}
        )
        yield stage
    finally:
        stage.stop_queue()
        stage.stop_cloud()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet(running_stage: Stage) -> Iterator[Fleet]:
    """A fleet without pods; whatever a test leaves behind is destroyed after it, and a leak fails the test."""
    found = Fleet(running_stage)
    found.reset()
    yield found
    found.tear_down()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Poll until a condition holds. Only for what other processes do; nothing of ours sleeps in a test."""

    def wait(condition: Callable[[], bool], what: str, *, limit_s: float = 60) -> None:
        end_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end_s:
                pytest.fail(f"not within {limit_s:.0f} s: {what}")
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def episodes() -> Path:
    return Path(__file__).parents[2] / "tools" / "episodes"
