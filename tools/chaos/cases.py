"""All points, made from the requests that an undisturbed run of each update sends. PURE. Called by the runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.chaos.point import DESTROY, SCALE, SWAP, UPDATES, Fault, Point, Then, Update, Victim

CHANGES = frozenset(
    f"{what}.{verb}" for what in ("pods", "secrets", "registries", "volumes") for verb in ("create", "update", "delete")
)
TO_THREE, TO_ONE, TO_NONE = SCALE[1:]
FIRST = SCALE[0]
LAG_S = 0.15  # below the quick settings' absence interval, as a real lag has to be below 10 s
LATE_S = (0.05, 0.3, 0.7)  # below a second, as long as the quick settings look again
HANG_S = 4.0  # longer than the quick patience waits for an answer


@dataclass(frozen=True, slots=True)
class Request:
    """One of an undisturbed run. One that is refused (a DELETE of what is gone) commits nothing."""

    op: str
    accepted: bool = True

    @property
    def phases(self) -> tuple[str, ...]:
        """When it can be struck: before its commit, and after it where it has one."""
        return ("before", "after") if self.accepted and self.op in CHANGES else ("before",)


Traffic = Mapping[Update, Sequence[Request]]


def all_points(traffic: Traffic) -> list[Point]:
    """Each name once."""
    found = {
        point.name: point for point in (*kills(traffic), *late(), *failures(traffic), *kinds(traffic), *unhurried())
    }
    return list(found.values())


def _each(update: Update, fault: Fault, *, refresh: bool = False, **more: Any) -> Iterator[Point]:
    """With both follow-ups. After a `destroy` that broke off, `up` has to look first, as `podfleet up` does."""
    for then in Then:
        look = refresh or (update.to is None and then is Then.UP)
        yield Point(update, fault, then, refresh=look, **more)


def _spots(requests: Sequence[Request]) -> Iterator[tuple[str, str, int]]:
    """Each request of an update, in each of its phases: operation, phase, the how manieth of that operation it is."""
    sent, accepted = Counter[str](), Counter[str]()
    for request in requests:
        sent[request.op] += 1
        accepted[request.op] += request.accepted
        for phase in request.phases:
            yield request.op, phase, (sent if phase == "before" else accepted)[request.op]


# SIGKILL at every request


def kills(traffic: Traffic) -> Iterator[Point]:
    """Engine, provider, both, or the emulator; before the commit, and after it where there is one."""
    for update in UPDATES:
        for op, phase, nth in _spots(traffic[update]):
            for victim in (Victim.ENGINE, Victim.PROVIDER, Victim.BOTH):
                yield from _each(update, at(op, phase, nth, action="hold"), victim=victim)
            kind = "cloud-dies" if phase == "before" else "cloud-dies-after"
            dies = Fault(_place(op, phase, nth), {"kind": kind, "op": op, "nth": nth})
            yield from _each(update, dies, victim=Victim.CLOUD)


def _place(op: str, phase: str, nth: int) -> str:
    if op not in CHANGES:
        return f"{op} {nth}"
    return f"{op} {nth} {'before the commit' if phase == 'before' else 'before the answer'}"


def at(op: str, phase: str, nth: int, words: str = "", **order: Any) -> Fault:
    return Fault(f"{words}{_place(op, phase, nth)}", {"op": op, "phase": phase, "nth": nth, **order})


def late() -> Iterator[Point]:
    """The engine is dead, and a POST of it is carried out when the next command is under way or over."""
    for update, pods in ((TO_THREE, 3), (SWAP, 2)):
        for nth in range(1, pods + 1):
            for delay_s in LATE_S:
                fault = named("create-late", nth, f" by {delay_s:g} s", delay_s=delay_s)
                for victim in (Victim.ENGINE, Victim.BOTH):
                    yield from _each(update, fault, victim=victim, looks=True)


# A request fails


def failures(traffic: Traffic) -> Iterator[Point]:
    """500, a cut line, 429 and a proxy's page at every request; no answer for long where something was changed."""
    for update in UPDATES:
        for op, phase, nth in _spots(traffic[update]):
            yield from _each(update, at(op, phase, nth, "500 at ", action="status", status=500))
            yield from _each(update, at(op, phase, nth, "line cut at ", action="drop"))
        for op in dict.fromkeys(request.op for request in traffic[update]):
            yield from _each(update, Fault(f"429 at {op}", {"kind": "rate-limited", "op": op, "delay_s": 1}))
            yield from _each(update, Fault(f"502 page at {op}", {"kind": "cloudflare-502", "op": op}))
            yield from _each(update, at(op, "before", 1, "401 at ", action="status", status=401))
            ever = {"op": op, "phase": "before", "action": "status", "status": 500, "times": 0}
            yield from _each(update, Fault(f"500 at each {op}", ever))
            if op in CHANGES:
                yield from _each(update, at(op, "after", 1, "no answer at ", action="hang", delay_s=HANG_S))


# The kinds of faults that users report


def kinds(traffic: Traffic) -> Iterator[Point]:
    """By name, at each request and each pod that they can strike."""
    yield from _bad_creates()
    yield from _bad_lists(traffic)
    yield from _bad_ends()
    yield from _bad_drains()
    yield from _bad_boots()
    yield from _bad_hosts()


def named(kind: str, nth: int = 1, text: str = "", **order: Any) -> Fault:
    """A kind of fault by its name, at its nth chance."""
    strikes_pods = kind in _BOOTS or kind in _HOSTS or kind == "page-lost"
    return Fault(f"{kind}{text} {nth}", {"kind": kind, "nth": nth, **order}, strikes_pods)


def _ever(kind: str, **order: Any) -> Fault:
    return Fault(f"{kind} each time", {"kind": kind, "times": 0, **order})


def _bad_creates() -> Iterator[Point]:
    for update, pods in ((TO_THREE, 3), (SWAP, 2)):
        for nth in range(1, pods + 1):
            for name, more in _CREATES.items():
                yield from _each(update, named(name, nth, **more))
        for status in (402, 403, 409, 422):
            refusal = {"op": "pods.create", "phase": "before", "action": "status", "status": status}
            yield from _each(update, Fault(f"{status} at pods.create", refusal))
            yield from _each(update, Fault(f"{status} at each pods.create", {**refusal, "times": 0}))
        for name in ("create-then-500", "create-then-drop", "create-twice"):
            yield from _each(update, _ever(name))
        yield from _each(update, _ever("capacity-flap", probability=1))


_CREATES: dict[str, dict[str, Any]] = {
    "create-then-500": {},
    "create-then-hang": {"delay_s": HANG_S},
    "create-then-drop": {},
    "create-twice": {},
    "create-late": {"delay_s": 3.0},  # longer than the quick patience, found by name within the second after it
    "create-hidden": {"delay_s": LAG_S},
    "capacity-flap": {"times": 1, "probability": 1},
}


def _bad_lists(traffic: Traffic) -> Iterator[Point]:
    for update in UPDATES:
        if update is FIRST or not _lists(traffic[update]):
            continue
        yield from _each(update, _ever("list-lag", delay_s=LAG_S))
        for nth in range(1, _lists(traffic[update]) + 1):
            yield from _each(update, named("list-stale-once", nth))
            yield from _each(update, named("page-lost", nth))


def _lists(requests: Sequence[Request]) -> int:
    return sum(request.op == "pods.list" for request in requests)


def _bad_ends() -> Iterator[Point]:
    for update, pods in ((TO_ONE, 2), (TO_NONE, 1), (SWAP, 2), (DESTROY, 2)):
        for nth in range(1, pods + 1):
            for name in ("delete-stays", "delete-404"):
                yield from _each(update, named(name, nth))
    for update in (TO_ONE, DESTROY):
        yield from _each(update, _ever("delete-stays"))


def _bad_drains() -> Iterator[Point]:
    """A pod's log is read for its host key before it is told over SSH to drain."""
    for update in (TO_ONE, DESTROY):
        for nth in (1, 2):
            place = ("pods.logs", "before", nth)
            yield from _each(update, at(*place, "500 at ", action="status", status=500), ssh=True)
            yield from _each(update, at(*place, "line cut at ", action="drop"), ssh=True)
            for victim in (Victim.ENGINE, Victim.PROVIDER, Victim.BOTH):
                yield from _each(update, at(*place, action="hold"), victim=victim, ssh=True)


def _bad_boots() -> Iterator[Point]:
    for nth in (1, 2, 3):
        for name, ends_in in _BOOTS.items():
            yield from _each(TO_THREE, named(name, nth), refresh=True, ends_in=ends_in)


_BOOTS = {
    "boot-null": "RUNNING",
    "boot-error": "ERROR",
    "boot-exited": "EXITED",
    "driver-old": "RUNNING",
    "secret-missing": "ERROR",
}


def _bad_hosts() -> Iterator[Point]:
    for name, ends_in in _HOSTS.items():
        for nth in (1, 2):
            yield from _each(TO_THREE, named(name, nth), later=True, refresh=True, ends_in=ends_in)


_HOSTS = {"host-death": "ERROR", "host-gone": "TERMINATED", "spot-preempt": "EXITED", "port-change": "RUNNING"}


# With the default settings: how long it takes a person


def unhurried() -> Iterator[Point]:
    """A few of them with the waits that a real stack has."""
    for fault, victim in (
        (at("pods.create", "after", 2, action="hold"), Victim.ENGINE),
        (at("pods.create", "before", 2, action="hold"), Victim.ENGINE),
        (at("pods.create", "after", 2, action="hold"), Victim.BOTH),
        (named("create-then-500", 2), Victim.NOBODY),
        (named("create-then-drop", 2), Victim.NOBODY),
        (named("create-twice", 2), Victim.NOBODY),
    ):
        yield from _each(TO_THREE, fault, victim=victim, defaults=True)
    for delay_s in (2.0, 20.0):
        fault = named("create-late", 2, f" by {delay_s:g} s", delay_s=delay_s)
        yield from _each(TO_THREE, fault, victim=Victim.BOTH, looks=True, defaults=True)
    for fault, victim in (
        (at("pods.delete", "before", 1, action="hold"), Victim.ENGINE),
        (named("delete-stays", 1), Victim.NOBODY),
    ):
        yield from _each(TO_ONE, fault, victim=victim, defaults=True)
