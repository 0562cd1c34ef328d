"""Faults and holds: what the cloud does wrong, when told to, and only then.

The request middleware asks before an operation is committed and before its answer is sent; the cloud asks inside an
operation, a pod's life while it boots and once it runs. Every hit is an event, written before anything blocks, so a
test that kills a client knows where the client was. The named kinds of faults are in `faultkinds`.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from localcloud.events import EventLog

Op = Literal[
    "*",  # any request
    "pods.list",
    "pods.create",
    "pods.get",
    "pods.update",
    "pods.delete",
    "pods.action",
    "pods.logs",
    "pods.boot",  # no request: a pod's way from PROVISIONING to its first process
    "catalog.gpus",
    "catalog.cpus",
    "catalog.datacenters",
    "secrets.create",
    "secrets.list",
    "secrets.update",
    "secrets.delete",
    "ssh-keys",
    "registries.create",
    "registries.list",
    "registries.delete",
    "volumes.create",
    "volumes.list",
    "volumes.update",
    "volumes.delete",
    "templates.create",
    "templates.list",
    "templates.update",
    "templates.delete",
    "billing",
    "graphql",  # whatever it asks for
    "graphql.myself",
    "graphql.pod",
    "graphql.podTerminate",
    "graphql.podStop",
]
ANY_REQUEST = "*"
NOT_REQUESTS = ("pods.boot", "pods.run")
Phase = Literal["before", "after"]
Action = Literal["hold", "status", "drop", "delay", "hang", "html", "die"]
INSIDE = "inside"  # the phase of kinds that change what an operation does


@dataclass(slots=True)
class Fault:
    """One order to fail: from the `nth` match on, `times` times (0 = for ever), each time with `probability`."""

    id: str
    op: str
    phase: str
    action: str
    kind: str | None = None
    nth: int = 1
    times: int = 1
    name_contains: str | None = None
    probability: float = 1.0
    seed: int = 0
    status: int = 500
    detail: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    matched: int = 0
    hits: int = 0
    holding: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def matches(self, op: str, phase: str, name: str | None) -> bool:
        """Whether it speaks about this operation."""
        any_request = self.op == ANY_REQUEST and op not in NOT_REQUESTS
        if self.phase != phase or not (any_request or op == self.op or op.startswith(f"{self.op}.")):
            return False
        return self.concerns(name) or (op == "pods.list" and phase == INSIDE)  # those choose rows by name

    def concerns(self, name: str | None) -> bool:
        """Whether its name filter lets this name through."""
        return self.name_contains is None or self.name_contains in (name or "")

    def due(self) -> bool:
        """Whether the match just counted is one to fail."""
        if self.matched < self.nth or (self.times and self.hits >= self.times):
            return False
        return self.probability >= 1 or self._chance() < self.probability

    def _chance(self) -> float:
        """The same for the same seed and the same match, whatever happened between."""
        return random.Random(f"{self.seed}/{self.matched}").random()  # noqa: S311 - repeatable is the point


class FaultTable:
    """All faults of a cloud; the first that is due decides."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._faults: dict[str, Fault] = {}
        self._numbers = itertools.count(1)
        self.on_armed: Callable[[Fault], None] = _ignore

    def new_id(self) -> str:
        """An id for the next fault."""
        return f"f{next(self._numbers)}"

    def add(self, fault: Fault) -> None:
        """Arm a fault."""
        self._faults[fault.id] = fault
        self.on_armed(fault)

    def all(self) -> list[Fault]:
        """Armed and used-up faults, oldest first."""
        return list(self._faults.values())

    def get(self, fault_id: str) -> Fault:
        """One that is there."""
        return self._faults[fault_id]

    def let_go(self) -> None:
        """Release what they hold, and leave them armed."""
        for fault in self._faults.values():
            fault.released.set()

    def remove(self, fault_id: str) -> bool:
        """Disarm one and let go what it holds; False when there is none."""
        fault = self._faults.pop(fault_id, None)
        if fault:
            fault.released.set()
            self._events.add("fault.removed", fault_id=fault_id, op=fault.op, phase=fault.phase, hits=fault.hits)
        return fault is not None

    def clear(self) -> None:
        """Disarm all and let go what they hold."""
        for fault_id in list(self._faults):
            self.remove(fault_id)

    def restore(self, faults: list[Fault]) -> None:
        """Take in what an earlier cloud had armed."""
        self._faults = {fault.id: fault for fault in faults}
        self._numbers = itertools.count(1 + max((int(fault.id[1:]) for fault in faults), default=0))

    def hit(self, op: str, phase: str, name: str | None) -> Fault | None:
        """Count one operation against every fault that speaks about it; the first that is due, logged."""
        due: Fault | None = None
        for fault in self._faults.values():
            if not fault.matches(op, phase, name):
                continue
            fault.matched += 1
            if due is None and fault.due():
                due = fault
                fault.hits += 1
        if due:
            fields = {"op": op, "phase": phase, "action": due.action, "name": name, "nth": due.matched}
            more = {"fault": due.kind} if due.kind else {}
            self._events.add("fault.hit", at_s=None, fault_id=due.id, **fields, **more)
        return due


def _ignore(_: Fault) -> None:
    """Nobody asks."""


async def wait_out(fault: Fault) -> None:
    """Block as long as a hold or a delay says."""
    if fault.action in ("delay", "hang", "late"):
        await asyncio.sleep(fault.delay_s)
    elif fault.action == "hold":
        fault.holding += 1
        try:
            await fault.released.wait()
        finally:
            fault.holding -= 1
