"""A real queue server for every test of the node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from podfleet_queue.testing import RunningQueue, running


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RunningQueue]:
    """Empty, on a free port."""
    with running(tmp_path / "queue") as server:
        yield server
