"""Is this pod an orphan? Facts in, verdict with its reason out. Pure. Called by `looks`.

An orphan is ours, old enough, and: not in the state, where the state can be read; else silent while no update is at
work; or past the end of its life that was written into it at create. A signal that cannot be read never ends a pod,
with one exception: a pod that says itself that it should be gone needs no other witness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

NODE = re.compile(r"slot-\d{2,3}-[0-9a-f]{8}(-\d+)?")


class Kind(StrEnum):
    """What is to be done about a thing."""

    FINE = "fine"
    UNCLEAR = "unclear"  # shown, never ended
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A kind and the reason for it, for people."""

    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod as the cloud lists it. `created_at_s` is 0 where that could not be read."""

    id: str
    name: str
    uid: str
    created_at_s: float
    expires_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """What was seen at one moment. None: not readable, and the text beside it says why.

    `known_ids`: what the state knows. `updating`: an update of the stack is at work. `silent_s`: seconds since the last
    heartbeat, by pod name; a name that is missing was never heard, a value of None cannot be told.
    """

    now_s: float
    known_ids: frozenset[str] | None = None
    why_no_state: str = ""
    updating: bool | None = None
    silent_s: Mapping[str, float | None] | None = None
    why_no_nodes: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Whose pods, and for how long what may last. `boot_s`: the longest that an `up` waits for a pod."""

    uid: str
    prefix: str
    min_age_s: float
    silence_s: float
    boot_s: float


def judge(pod: PodFacts, pods: Iterable[PodFacts], signals: Signals, rules: Rules) -> Verdict:
    """The verdict on `pod`, one of `pods`."""
    if not is_ours(pod, rules):
        return Verdict(Kind.FINE, "not ours")
    if pod.created_at_s <= 0:
        return Verdict(Kind.UNCLEAR, "its age cannot be read")
    if signals.now_s - pod.created_at_s < rules.min_age_s:
        return Verdict(Kind.FINE, f"younger than {span(rules.min_age_s)}")
    if pod.expires_at_s and signals.now_s >= pod.expires_at_s:
        return _unless_updating(signals, f"past its lifetime for {span(signals.now_s - pod.expires_at_s)}")
    return _by_its_node(pod, pods, signals, rules) if signals.known_ids is None else _by_the_state(pod, signals)


def is_ours(pod: PodFacts, rules: Rules) -> bool:
    """Our uid and our name prefix; an empty one owns nothing."""
    return bool(rules.uid and rules.prefix) and pod.uid == rules.uid and pod.name.startswith(rules.prefix)


def is_node_name(name: str, prefix: str) -> bool:
    """The name of a pod of ours, as a host or a node has it; a tailnet numbers those that come twice."""
    return bool(prefix) and name.startswith(prefix) and NODE.fullmatch(name.removeprefix(prefix)) is not None


def _by_the_state(pod: PodFacts, signals: Signals) -> Verdict:
    if signals.known_ids is not None and pod.id in signals.known_ids:
        return Verdict(Kind.FINE, "in the state")
    return _unless_updating(signals, "not in the state")


def _by_its_node(pod: PodFacts, pods: Iterable[PodFacts], signals: Signals, rules: Rules) -> Verdict:
    """Without the state: by heartbeats, and by whether an update may be what the pod waits for."""
    blind = f"state not readable ({signals.why_no_state})"
    if signals.silent_s is None:
        return Verdict(Kind.UNCLEAR, f"{blind}, nor heartbeats ({signals.why_no_nodes})")
    silent_s = signals.silent_s.get(pod.name, signals.now_s - pod.created_at_s)
    if silent_s is None:
        return Verdict(Kind.UNCLEAR, f"its node is offline, for how long the server does not say; {blind}")
    if silent_s < rules.silence_s:
        return Verdict(Kind.FINE, "its node is heard")
    heard = pod.name in signals.silent_s
    silence = f"no heartbeat for {span(silent_s)}" if heard else "never a heartbeat"
    if signals.updating is None and _an_update_may_run(pods, signals, rules):
        return Verdict(Kind.UNCLEAR, f"{silence}; an update may be at work: a pod is younger than {span(rules.boot_s)}")
    return _unless_updating(signals, f"{silence}; {blind}")


def _an_update_may_run(pods: Iterable[PodFacts], signals: Signals, rules: Rules) -> bool:
    """Seen from the cloud alone: a pod of ours is so young that somebody may be waiting for it."""
    return any(is_ours(pod, rules) and signals.now_s - pod.created_at_s < rules.boot_s for pod in pods)


def _unless_updating(signals: Signals, reason: str) -> Verdict:
    if signals.updating:
        return Verdict(Kind.UNCLEAR, f"{reason}; an update is at work")
    return Verdict(Kind.ORPHAN, reason)


def span(seconds: float) -> str:
    """A length of time for people."""
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
