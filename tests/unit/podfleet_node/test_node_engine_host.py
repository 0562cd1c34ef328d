"""The engine's process as its worker sees it, when it does not behave."""

import math

import anyio
import pytest
from node_fakes import FakeClock

from podfleet_node import engine_host as module
from podfleet_node.engine_host import EngineHost

pytestmark = pytest.mark.anyio


class InADriverThatHangs:
    """SIGKILL has no effect on it."""

    pid = 1
    returncode = None
    killed = False

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> int:
        await anyio.sleep(math.inf)
        return 0

    async def aclose(self) -> None:
        await self.wait()


async def test_an_engine_that_cannot_die_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_S", 0.01)
    host = EngineHost("scripted", "", FakeClock())
    process = InADriverThatHangs()
    host._process = process  # type: ignore[assignment]
    with anyio.fail_after(5):
        await host.close()
    assert process.killed
    assert host._process is None
