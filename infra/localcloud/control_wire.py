"""The JSON of `/_emu/*`, strictly. Called by `control_api`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from localcloud.errors import Problem
from localcloud.facts import Facts
from localcloud.faultkinds import KINDS, allowed
from localcloud.faults import ANY_REQUEST, Action, Fault, Op, Phase


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


BOOT_ACTIONS = ("hold", "status", "drop", "delay")


class FaultBody(_Body):
    """`POST /_emu/faults`: a `kind`, or `op`, `phase` and `action`."""

    kind: str | None = None
    op: Op | None = None
    phase: Phase | None = None
    action: Action | None = None
    nth: int = Field(default=1, ge=1)
    times: int = Field(default=1, ge=0)
    name_contains: str | None = None
    probability: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    status: int = Field(default=500, ge=400, le=599)
    detail: str | None = None
    headers: dict[str, str] = {}
    delay_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> "FaultBody":
        if self.kind is None:
            if self.op is None or self.action is None:
                raise ValueError("a fault needs kind, or op and action")
            if self.op == "pods.boot" and self.action not in BOOT_ACTIONS:
                raise ValueError(f"pods.boot is no request: its actions are {', '.join(BOOT_ACTIONS)}")
        elif self.kind not in KINDS:
            raise ValueError(f"kind: there is no {self.kind!r}; allowed: {allowed()}")
        elif self.phase or self.action:
            raise ValueError(f"kind {self.kind} has its own phase and action")
        elif self.op and KINDS[self.kind].op != ANY_REQUEST:
            raise ValueError(f"kind {self.kind} is about {KINDS[self.kind].op} alone: op is for kinds of any request")
        elif self.op == "pods.boot":
            raise ValueError(f"kind {self.kind} is about requests, and pods.boot is none")
        return self

    def to_fault(self, fault_id: str, facts: Facts) -> Fault:
        """The armed fault."""
        given = self.model_dump(exclude_unset=True, exclude_none=True)
        kind = given.pop("kind", None)
        if kind is None:
            return Fault(id=fault_id, **{"phase": "before", **given})
        usual = facts.fault_defaults.get(kind)
        return KINDS[kind].fault(fault_id, kind, usual.given() if usual else {}, given)


class OwnedBody(_Body):
    """`POST /_emu/ledger/owned`: the pods that somebody knows, among those whose names begin with `prefix`."""

    ids: tuple[str, ...]
    prefix: str = ""


def fault_json(fault: Fault) -> dict[str, Any]:
    """A fault with its counts."""
    keys = ("id", "kind", "op", "phase", "action", "nth", "times", "name_contains", "probability", "seed", "status")
    return {key: getattr(fault, key) for key in (*keys, "detail", "headers", "delay_s", "matched", "hits", "holding")}


def no_fault(fault_id: str) -> Problem:
    """404."""
    return Problem(404, f"no fault {fault_id}")
