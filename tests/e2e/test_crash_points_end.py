"""The engine is killed on the way down: in a drain, before an end is committed, before it is answered or proven."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from tests.e2e.crash import Point, crash, hold, recover_by_destroy, recover_by_up
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.engine, pytest.mark.slow]

DRAIN = "podfleet-node drain"
SLOW: dict[str, Any] = {"bootstrap": "image", "model": "speed=2"}  # a job that a drain has to wait for
ONE_LESS: dict[str, Any] = {"pods": 1}
OTHER_IMAGE: dict[str, Any] = {"image": "localhost/podfleet-node:next"}


POINTS = (
    Point("in a drain: a slot that is not wanted any more", (), before=1, change={"pods": 0}, ssh=DRAIN, settings=SLOW),
    Point("in a drain: a pod that is replaced", (), before=1, change=OTHER_IMAGE, ssh=DRAIN, settings=SLOW),
    Point("in delete: the DELETE has arrived", (hold("pods.delete", "before"),), before=2, change=ONE_LESS),
    Point("in delete: ended, not answered", (hold("pods.delete", "after"),), before=2, change=ONE_LESS),
    Point(
        "in delete: answered, its absence not proven",
        (hold("pods.delete", "after"), hold("pods.list", "before")),
        before=2,
        change=ONE_LESS,
    ),
    Point("in delete: a pod that is replaced", (hold("pods.delete", "after"),), before=1, change=OTHER_IMAGE),
)


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_then_up(fleet: Fleet, point: Point) -> None:
    recover_by_up(fleet, crash(fleet, point))


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_then_destroy(fleet: Fleet, point: Point) -> None:
    crash(fleet, point)
    recover_by_destroy(fleet)


def test_terminated_in_a_delete_then_up(fleet: Fleet) -> None:
    recover_by_up(fleet, crash(fleet, POINTS[3], signal.SIGTERM))


def test_terminated_in_a_delete_then_destroy(fleet: Fleet) -> None:
    crash(fleet, POINTS[3], signal.SIGTERM)
    recover_by_destroy(fleet)
