"""A clock that only tests move, and a queue server of forty lines behind httpx's mock transport."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio.lowlevel
import httpx

from podfleet_node.desk import Desk
from podfleet_node.holdings import Holdings
from podfleet_node.identity import Identity
from podfleet_node.jobs_client import JobsClient
from podfleet_node.lifecycle import Activity
from podfleet_node.link import EventPipe
from podfleet_node.metrics import Metrics
from podfleet_node.paths import Paths
from podfleet_node.settings import NodeSettings

Answer = httpx.Response | Exception


class FakeClock:
    """Sleeping moves it, and lets other tasks run."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.at_s += seconds
        await anyio.lowlevel.checkpoint()


@dataclass
class TinyQueue:
    """Remembers every request; `script` answers by "METHOD /path" (`*` for any id), each entry once, then as usual."""

    script: dict[str, list[Answer]] = field(default_factory=dict)
    jobs: list[int] = field(default_factory=list)
    seen: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    registered: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        call = f"{request.method} {re.sub(r'/(node-)?[0-9]+', '/*', request.url.path)}"
        self.seen.append((call, json.loads(request.content) if request.content else {}))
        if self.script.get(call):
            answer = self.script[call].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self._usual(call)

    def _usual(self, call: str) -> httpx.Response:
        if call == "POST /api/nodes/register":
            self.registered += 1
            return httpx.Response(200, json={"node_id": f"node-{self.registered}", "api_key": "k", "message": ""})
        if call == "POST /api/nodes/*/claim":
            job = self.jobs.pop(0) if self.jobs else None
            return httpx.Response(200, json={"has_job": job is not None, "job_id": job, "audio_url": ""})
        return httpx.Response(200, json={"message": "fine"})

    def calls(self, call: str) -> list[dict[str, object]]:
        """Bodies of all requests of one kind."""
        return [body for seen, body in self.seen if seen == call]


def make_desk(root: Path, handler: Callable[[httpx.Request], httpx.Response], **settings: object) -> Desk:
    """A desk at a fake server, registered as `node-9`."""
    known = NodeSettings.checked({"root": str(root), "server_url": "http://q", "node_name": "n", **settings})
    client = JobsClient(known.server_url, transport=httpx.MockTransport(handler))
    clock = FakeClock()
    identity = Identity(Paths(root).identity_file, known, client)
    identity.node_id = "node-9"
    return Desk(
        settings=known,
        paths=Paths(root),
        clock=clock,
        client=client,
        identity=identity,
        holdings=Holdings(),
        activity=Activity.started(clock.monotonic_s()),
        metrics=Metrics(),
        events=EventPipe(None),
        decoder="pyav",
        unknown_to_server=False,
    )
