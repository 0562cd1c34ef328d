"""Points for the real engine: fewer, since each takes half a minute. PURE. Run by `engine_points`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tools.chaos.cases import at, named
from tools.chaos.point import Fault, Point, Then, Update, Victim
from tools.chaos.program import Size

GROW = Update((Size(0),), Size(2))
SHRINK = Update((Size(2),), Size(1))
SWAP = Update((Size(1),), Size(1, image=1))
END = Update((Size(1),), None)


def engine_points() -> list[Point]:
    """Each name once; all names begin with `engine: `."""
    return [point for made in (_kills(), _late(), _faults()) for point in made]


def _kills() -> Iterator[Point]:
    before, after = "before", "after"
    spots: dict[Victim, Sequence[tuple[Update, str, str, int]]] = {
        Victim.ENGINE: (
            (GROW, "pods.list", before, 2),
            (GROW, "pods.create", before, 1),
            (GROW, "pods.create", after, 1),
            (GROW, "pods.create", after, 2),
            (SHRINK, "pods.delete", before, 1),
            (SHRINK, "pods.delete", after, 1),
            (SWAP, "pods.delete", after, 1),
            (SWAP, "pods.create", after, 1),
            (END, "pods.delete", after, 1),
            (END, "secrets.delete", after, 1),
        ),
        Victim.PROVIDER: (
            (GROW, "pods.create", after, 1),
            (GROW, "pods.create", before, 2),
            (SHRINK, "pods.delete", after, 1),
            (SWAP, "pods.create", after, 1),
            (END, "pods.delete", before, 1),
        ),
        Victim.CLOUD: (
            (GROW, "pods.create", before, 1),
            (GROW, "pods.create", after, 2),
            (SHRINK, "pods.delete", after, 1),
            (SWAP, "pods.delete", before, 1),
            (END, "pods.delete", after, 1),
        ),
    }
    for victim, places in spots.items():
        for update, op, phase, nth in places:
            fault = at(op, phase, nth, action="hold")
            if victim is Victim.CLOUD:
                dies = "cloud-dies" if phase == before else "cloud-dies-after"
                fault = Fault(fault.text, {"kind": dies, "op": op, "nth": nth})
            yield from _both(update, fault, victim=victim)


def _late() -> Iterator[Point]:
    for delay_s, defaults in ((6.0, False), (15.0, True)):
        fault = named("create-late", 1, f" by {delay_s:g} s", delay_s=delay_s)
        yield from _both(GROW, fault, victim=Victim.ENGINE, looks=True, defaults=defaults)


def _faults() -> Iterator[Point]:
    creates: dict[str, dict[str, Any]] = {
        "create-then-500": {},
        "create-then-hang": {"delay_s": 3.0},
        "create-then-drop": {},
        "create-twice": {},
        "create-hidden": {"delay_s": 0.1},
        "list-stale-once": {},
    }
    for name, more in creates.items():
        yield from _both(GROW, named(name, 1, **more))
    for name in ("rate-limited", "cloudflare-502"):
        yield from _both(GROW, Fault(f"{name} at pods.create", {"kind": name, "op": "pods.create"}))
    for name in ("delete-stays", "delete-404"):
        yield from _both(SHRINK, named(name, 1))
    yield from _both(GROW, named("boot-error", 1), ends_in="ERROR")
    for name, ends_in in (("host-gone", "TERMINATED"), ("spot-preempt", "EXITED")):
        yield from _both(GROW, named(name, 1), later=True, ends_in=ends_in)


def _both(update: Update, fault: Fault, **more: Any) -> Iterator[Point]:
    for then in Then:
        yield Point(update, fault, then, real=True, **more)
