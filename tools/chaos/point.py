"""A crash point: what is done to which update, and what a person does next. PURE. Made by `cases`, run by `strike`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from tools.chaos.program import Size


class Then(StrEnum):
    """The one command that follows."""

    UP = "up"
    DESTROY = "destroy"


class Victim(StrEnum):
    """Who gets SIGKILL when the fault hits."""

    NOBODY = ""
    ENGINE = "engine"
    PROVIDER = "provider"
    BOTH = "engine and provider"
    CLOUD = "localcloud"


@dataclass(frozen=True, slots=True)
class Update:
    """One update: to a size, or to nothing at all (`destroy`); `looks`: it begins with a refresh."""

    before: tuple[Size, ...]
    to: Size | None
    looks: bool = False

    def __str__(self) -> str:
        start = str(self.before[-1]) if self.before else "nothing"
        if self.looks:
            return f"refresh of {start}"
        return f"destroy of {start}" if self.to is None else f"{start} → {self.to}"

    @property
    def spares_pods(self) -> bool:
        """Whether the pods have to be the same ones afterwards."""
        return self.to is not None and self.before != () and replace(self.to, account=0) == self.before[-1]


SCALE = (
    Update((), Size(0)),
    Update((Size(0),), Size(3)),
    Update((Size(0), Size(3)), Size(1)),
    Update((Size(0), Size(3), Size(1)), Size(0)),
)
SWAP = Update((Size(2),), Size(2, image=1))
DESTROY = Update((Size(2),), None)
REFRESH = Update((Size(2),), Size(2), looks=True)
ACCOUNT = Update((Size(2),), Size(2, account=1))
UPDATES = (*SCALE, SWAP, REFRESH, ACCOUNT, DESTROY)


@dataclass(frozen=True, slots=True)
class Fault:
    """An order for the emulator's fault table; `text` names it. `strikes_pods`: which ones, is said by their names."""

    text: str
    order: Mapping[str, Any] = field(hash=False)
    strikes_pods: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """`later`: the fault is armed when the update is over. `ends_in`: what becomes of the pod that it strikes.

    `looks`: the follow-up is that of `podfleet`, which looks again for a minute after a killed update. `ssh`: the pods
    have an SSH port, and are drained by it. `real`: with the real engine.
    """

    update: Update
    fault: Fault
    then: Then
    victim: Victim = Victim.NOBODY
    later: bool = False
    refresh: bool = False
    ends_in: str = ""
    ssh: bool = False
    looks: bool = False
    defaults: bool = False
    real: bool = False

    @property
    def name(self) -> str:
        """Unique, and the same in each run."""
        killed = f"kill {self.victim} at " if self.victim else ""
        settings = ", default settings" if self.defaults else ", by SSH" if self.ssh else ""
        then = f"refresh and {self.then}" if self.refresh else str(self.then)
        real = "engine: " if self.real else ""
        return f"{real}{killed}{self.fault.text}, {self.update}{settings}, then {then}"

    @property
    def wanted(self) -> Size | None:
        """What there has to be after the follow-up."""
        if self.then is Then.DESTROY:
            return None
        return self.update.to or self.update.before[-1]
