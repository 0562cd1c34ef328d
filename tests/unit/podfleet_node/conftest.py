"""For the node's unit tests: one event loop kind, no waiting between retries."""

from collections.abc import Iterator

import pytest
import stamina


@pytest.fixture
def anyio_backend() -> str:
    """The node runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries stay, their pauses go."""
    with stamina.set_testing(True, attempts=5, cap=True):
        yield
