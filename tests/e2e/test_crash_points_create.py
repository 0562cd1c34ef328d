"""The engine is killed on the way up: before a POST, between commit and answer, between answer and state."""

from __future__ import annotations

import signal

import pytest
from tests.e2e.crash import Point, crash, hold, recover_by_destroy, recover_by_up
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.engine, pytest.mark.slow]


POINTS = (
    # before the POST
    Point("before the POST: Guard's look at the pods", (hold("pods.list", "before", nth=2),)),
    Point("before the POST: the account secret", (hold("secrets.create", "before"),)),
    Point("before the POST: the POST has arrived, nothing is committed", (hold("pods.create", "before"),)),
    # after commit, before the answer
    Point("after commit, before the answer: the first pod", (hold("pods.create", "after"),)),
    Point("after commit, before the answer: the second pod", (hold("pods.create", "after", nth=2),)),
    Point("after commit, before the answer: the account secret", (hold("secrets.create", "after"),)),
    # after the answer, before the state is written
    Point("after the answer, before the state: the first pod", (hold("pods.create", "after"),), freeze=True),
    Point(
        "after the answer, before the state: one more pod beside one that is known",
        (hold("pods.create", "after", name_contains="slot-02"),),
        before=1,
        freeze=True,
    ),
)


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_then_up(fleet: Fleet, point: Point) -> None:
    recover_by_up(fleet, crash(fleet, point))


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_then_destroy(fleet: Fleet, point: Point) -> None:
    crash(fleet, point)
    recover_by_destroy(fleet)


def test_terminated_in_a_create_then_up(fleet: Fleet) -> None:
    recover_by_up(fleet, crash(fleet, POINTS[3], signal.SIGTERM))


def test_terminated_in_a_create_then_destroy(fleet: Fleet) -> None:
    crash(fleet, POINTS[3], signal.SIGTERM)
    recover_by_destroy(fleet)
