"""Faults and holds: what the cloud does wrong, when told to, and only then.

The request middleware asks before an operation is committed and before its answer is sent; a pod's life asks before it
boots. Every hit is an event, written before anything blocks, so a test that kills a client knows where the client was.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Literal

from localcloud.events import EventLog

Op = Literal[
    "pods.list",
    "pods.create",
    "pods.get",
    "pods.delete",
    "pods.action",
    "pods.logs",
    "pods.boot",
    "catalog.gpus",
    "secrets.create",
    "secrets.list",
    "secrets.update",
    "secrets.delete",
]
Phase = Literal["before", "after"]
Action = Literal["hold", "status", "drop", "delay"]


@dataclass(slots=True)
class Fault:
    """One order to fail: at the `nth` match, and for `times` matches from there."""

    id: str
    op: str
    phase: Phase
    action: Action
    nth: int = 1
    times: int = 1
    name_contains: str | None = None
    status: int = 500
    detail: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    matched: int = 0
    hits: int = 0
    holding: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def matches(self, op: str, phase: Phase, name: str | None) -> bool:
        """Whether it speaks about this operation."""
        if (self.op, self.phase) != (op, phase):
            return False
        return self.name_contains is None or self.name_contains in (name or "")

    def due(self) -> bool:
        """Whether the match just counted is one to fail."""
        return self.nth <= self.matched < self.nth + self.times


class FaultTable:
    """All faults of a cloud; the first that is due decides."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._faults: dict[str, Fault] = {}
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """An id for the next fault."""
        return f"f{next(self._numbers)}"

    def add(self, fault: Fault) -> None:
        """Arm a fault."""
        self._faults[fault.id] = fault

    def all(self) -> list[Fault]:
        """Armed and used-up faults, oldest first."""
        return list(self._faults.values())

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

    def hit(self, op: str, phase: Phase, name: str | None) -> Fault | None:
        """Count one operation against every fault that speaks about it; the first that is due, logged."""
        due: Fault | None = None
        for fault in self._faults.values():
            if fault.matches(op, phase, name):
                fault.matched += 1
                due = due or (fault if fault.due() else None)
        if due:
            due.hits += 1
            self._events.add(
                "fault.hit", fault_id=due.id, op=op, phase=phase, action=due.action, name=name, nth=due.matched
            )
        return due


async def wait_out(fault: Fault) -> None:
    """Block as long as a hold or a delay says."""
    if fault.action == "delay":
        await asyncio.sleep(fault.delay_s)
    elif fault.action == "hold":
        fault.holding += 1
        try:
            await fault.released.wait()
        finally:
            fault.holding -= 1
