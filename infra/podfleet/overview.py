"""What a person wants to see of a stack: its pods, what differs from the wish, and the money. Pure.

Made for `podfleet status` from one list of pods, the queue's nodes, the bills and the stack's file; `tables` shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from podfleet.config import PodfleetConfig
from podfleet.podspec import pod_spec, remote_name, slot_of
from podfleet.providers.runpod.spend_rules import Run, day_sum
from podfleet.providers.runpod.wire import PodView
from podfleet.providers.runpod.wire_account import Balance
from podfleet.signals.queue import Node


@dataclass(frozen=True, slots=True)
class Row:
    """One pod of ours. `node`: idle, working, silent or not heard; `unknown` where the queue does not answer."""

    slot: str
    name: str
    id: str
    status: str
    gpu: str
    cloud: str
    data_center_id: str
    usd_per_hr: float
    created_at_s: float
    age_s: float
    lifetime_left_s: float | None
    node: str


@dataclass(frozen=True, slots=True)
class Drift:
    """What `podfleet up` would change, by slot."""

    missing: tuple[str, ...] = ()
    not_wanted: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    other_spec: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.missing, self.not_wanted, self.ended, self.other_spec, self.doubled))

    def lines(self) -> list[str]:
        """A line per kind, each with what `up` does about it."""
        told = (
            (self.missing, "missing", "`podfleet up` rents them"),
            (self.ended, "not alive", "`podfleet up` replaces them"),
            (self.other_spec, "of another spec", "`podfleet up` replaces them"),
            (self.not_wanted, "not wanted", "`podfleet up` ends them"),
            (self.doubled, "more than one pod", "`podfleet up` keeps one"),
        )
        return [f"{what}: {', '.join(slots)} ({does})" for slots, what, does in told if slots]


@dataclass(frozen=True, slots=True)
class Money:
    """Dollars. None: nobody says."""

    usd_per_hr: float
    usd_last_24_h: float
    bill_read: bool
    balance: Balance | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it."""

    stack: str
    wanted_slots: tuple[str, ...]
    pods: tuple[Row, ...]
    drift: Drift
    money: Money
    queue_trouble: str
    decision: str

    def json(self) -> dict[str, Any]:
        """For programs."""
        money, balance = self.money, self.money.balance
        return {
            "stack": self.stack,
            "wanted_slots": list(self.wanted_slots),
            "pods": [asdict(row) for row in self.pods],
            "drift": asdict(self.drift),
            "usd_per_hr": money.usd_per_hr,
            "usd_last_24_h": money.usd_last_24_h,
            "balance_usd": balance.usd if balance else None,
            "account_usd_per_hr": balance.spend_usd_per_hr if balance else None,
            "queue": self.queue_trouble or "ok",
            "decision": self.decision,
        }


def rows(pods: Sequence[PodView], nodes: Mapping[str, Node] | None, *, prefix: str, now_s: float) -> tuple[Row, ...]:
    """By slot, then by age. `nodes` is None where the queue does not answer."""
    ordered = sorted(pods, key=lambda pod: (pod.name, pod.created_at_s))
    return tuple(
        Row(
            slot=slot_of(pod.name, prefix),
            name=pod.name,
            id=pod.id,
            status=pod.status,
            gpu=pod.gpu,
            cloud=pod.cloud,
            data_center_id=pod.data_center_id,
            usd_per_hr=pod.cost_usd_per_hr,
            created_at_s=pod.created_at_s,
            age_s=max(0.0, now_s - pod.created_at_s) if pod.created_at_s else 0.0,
            lifetime_left_s=None if pod.expires_at_s is None else pod.expires_at_s - now_s,
            node=node_word(pod, nodes),
        )
        for pod in ordered
    )


def node_word(pod: PodView, nodes: Mapping[str, Node] | None) -> str:
    """What the queue knows of a pod's node; a heartbeat older than the pod is that of the one before it."""
    if not pod.live:
        return "-"
    if nodes is None:
        return "unknown"
    node = nodes.get(pod.name)
    if node is None or (node.beat_s is not None and node.beat_s < pod.created_at_s):
        return "not heard"
    if not node.online:
        return "silent"
    return "idle" if node.idle else "working"


def drift(config: PodfleetConfig, pods: Sequence[PodView], *, prefix: str) -> Drift:
    """What is there against what is wanted. A slot counts once, under its most telling difference."""
    spec = pod_spec(config)
    wanted = {slot: remote_name(prefix, slot, config.uid, spec) for slot in config.wanted_slots}
    by_slot: dict[str, list[PodView]] = {}
    for pod in pods:
        by_slot.setdefault(slot_of(pod.name, prefix), []).append(pod)
    live = Counter(slot for slot, found in by_slot.items() for pod in found if pod.live)
    known = [slot for slot in wanted if slot in by_slot]
    return Drift(
        missing=tuple(slot for slot in wanted if slot not in by_slot),
        not_wanted=tuple(sorted(slot for slot in by_slot if slot not in wanted)),
        ended=tuple(slot for slot in known if not live[slot]),
        other_spec=tuple(slot for slot in known if live[slot] and not _has(by_slot[slot], wanted[slot])),
        doubled=tuple(slot for slot in known if live[slot] and len(by_slot[slot]) > 1),
    )


def money(
    pods: Sequence[PodView],
    bills: Mapping[str, float] | None,
    runs: Mapping[str, Run],
    balance: Balance | None,
    *,
    now_s: float,
) -> Money:
    """The pods' own prices, and the last 24 hours: the bill of each pod of ours, at least its price times its time.

    `runs` are pods that this checkout has seen; one that is gone and was never seen here is in no sum.
    """
    here = {pod.id: Run(pod.cost_usd_per_hr, pod.created_at_s or now_s, now_s) for pod in pods}
    ours = {**runs, **here}
    known = {pod_id: usd for pod_id, usd in (bills or {}).items() if pod_id in ours}
    spent = day_sum(known, ours, (), now_s=now_s)
    return Money(sum(pod.cost_usd_per_hr for pod in pods), round(spent.usd, 4), bills is not None, balance)


def _has(pods: Sequence[PodView], name: str) -> bool:
    return any(pod.live and pod.name == name for pod in pods)
