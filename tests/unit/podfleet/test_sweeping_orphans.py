"""The verdict on a pod: what is never ended, whatever else is true, and the reason that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet.sweeping.orphans import Kind, PodFacts, Rules, Signals, is_node_name, judge

UID, PREFIX = "prod-0badcafe", "podfleet-prod-"
RULES = Rules(UID, PREFIX, min_age_s=900, silence_s=600, boot_s=2100)
NOW_S = 1_000_000.0
OLD = PodFacts("p1", f"{PREFIX}slot-01-00000001", UID, created_at_s=NOW_S - 7200)

ages_s = st.floats(0, 100_000)
maybe_s = st.none() | st.floats(0, 100_000) | st.just(0.0)
pods = st.builds(
    PodFacts,
    id=st.sampled_from(["p1", "p2", "p3"]),
    name=st.sampled_from([OLD.name, f"{PREFIX}slot-02-00000001", "podfleet-prodigy-slot-01-00000001", "somebody"]),
    uid=st.sampled_from([UID, UID, "prod-ffffffff", ""]),
    created_at_s=ages_s.map(lambda age_s: NOW_S - age_s) | st.just(0.0),
    expires_at_s=st.none() | st.floats(-5000, 5000).map(lambda left_s: NOW_S + left_s),
)
signals = st.builds(
    Signals,
    now_s=st.just(NOW_S),
    known_ids=st.none() | st.frozensets(st.sampled_from(["p1", "p2", "p3"])),
    updating=st.none() | st.booleans(),
    silent_s=st.none() | st.dictionaries(st.sampled_from([OLD.name, f"{PREFIX}slot-02-00000001"]), maybe_s),
)
fleets = st.lists(pods, max_size=3)


def is_past_its_lifetime(pod: PodFacts) -> bool:
    return bool(pod.expires_at_s) and (pod.expires_at_s or 0) <= NOW_S


@given(pods, fleets, signals)
def test_what_is_never_ended(pod: PodFacts, others: list[PodFacts], seen: Signals) -> None:
    if judge(pod, [pod, *others], seen, RULES).kind is not Kind.ORPHAN:
        return
    assert pod.uid == UID
    assert pod.name.startswith(PREFIX)
    assert pod.created_at_s > 0
    assert NOW_S - pod.created_at_s >= RULES.min_age_s
    assert not seen.updating, "an update at work ends what it has to end itself"
    if not is_past_its_lifetime(pod):
        assert seen.known_ids is None or pod.id not in seen.known_ids
        assert seen.known_ids is not None or seen.silent_s is not None, "nothing was seen of it"


@given(pods, fleets, signals)
def test_a_node_that_is_heard_is_safe_unless_the_state_or_its_own_lifetime_says_otherwise(
    pod: PodFacts, others: list[PodFacts], seen: Signals
) -> None:
    blind = replace(seen, known_ids=None, silent_s={pod.name: 30.0})
    if not is_past_its_lifetime(pod):
        assert judge(pod, [pod, *others], blind, RULES).kind is not Kind.ORPHAN


@given(pods, fleets, signals)
def test_a_signal_that_is_lost_never_makes_an_orphan_of_a_pod_that_is_known(
    pod: PodFacts, others: list[PodFacts], seen: Signals
) -> None:
    """Losing a signal may turn fine into unclear, and an orphan into unclear; never the server's into the state's."""
    if judge(pod, [pod, *others], replace(seen, known_ids=None), RULES).kind is not Kind.ORPHAN:
        return
    deaf = replace(seen, known_ids=None, silent_s=None)
    assert is_past_its_lifetime(pod) or judge(pod, [pod, *others], deaf, RULES).kind is Kind.UNCLEAR


@given(pods, fleets, signals, st.floats(1, 100_000))
def test_a_pod_that_is_old_enough_stays_so(
    pod: PodFacts, others: list[PodFacts], seen: Signals, later_s: float
) -> None:
    """With the same facts, time alone makes no pod safer."""
    if judge(pod, [pod, *others], seen, RULES).kind is Kind.ORPHAN:
        silent_s = seen.silent_s and {name: s if s is None else s + later_s for name, s in seen.silent_s.items()}
        later = replace(seen, now_s=NOW_S + later_s, silent_s=silent_s)
        assert judge(pod, [pod, *others], later, RULES).kind is Kind.ORPHAN


@pytest.mark.parametrize(
    ("pod", "seen", "kind", "reason"),
    [
        (OLD, Signals(NOW_S, known_ids=frozenset({"p1"})), Kind.FINE, "in the state"),
        (OLD, Signals(NOW_S, known_ids=frozenset()), Kind.ORPHAN, "not in the state"),
        (
            OLD,
            Signals(NOW_S, known_ids=frozenset(), updating=True),
            Kind.UNCLEAR,
            "not in the state; an update is at work",
        ),
        (replace(OLD, created_at_s=NOW_S - 899), Signals(NOW_S, known_ids=frozenset()), Kind.FINE, "younger than 15"),
        (replace(OLD, created_at_s=0.0), Signals(NOW_S, known_ids=frozenset()), Kind.UNCLEAR, "its age cannot be read"),
        (
            replace(OLD, expires_at_s=NOW_S - 3600 * 3),
            Signals(NOW_S, known_ids=frozenset({"p1"}), silent_s={OLD.name: 0.0}),
            Kind.ORPHAN,
            "past its lifetime for 3.0 h",
        ),
        (
            OLD,
            Signals(NOW_S, why_no_state="no engine", why_no_nodes="no answer"),
            Kind.UNCLEAR,
            "state not readable (no engine), nor heartbeats (no answer)",
        ),
        (
            OLD,
            Signals(NOW_S, why_no_state="no engine", silent_s={OLD.name: 660.0}),
            Kind.ORPHAN,
            "no heartbeat for 11 min; state not readable (no engine)",
        ),
        (OLD, Signals(NOW_S, silent_s={}), Kind.ORPHAN, "never a heartbeat"),
        (OLD, Signals(NOW_S, silent_s={OLD.name: 599.0}), Kind.FINE, "its node is heard"),
        (OLD, Signals(NOW_S, silent_s={OLD.name: None}), Kind.UNCLEAR, "for how long the server does not say"),
        (OLD, Signals(NOW_S, silent_s={}, updating=True), Kind.UNCLEAR, "an update is at work"),
    ],
)
def test_the_reason_says_what_was_seen(pod: PodFacts, seen: Signals, kind: Kind, reason: str) -> None:
    verdict = judge(pod, [pod], seen, RULES)
    assert (verdict.kind, reason in verdict.reason) == (kind, True), verdict


def test_while_a_pod_is_young_somebody_may_be_waiting_for_another() -> None:
    """From a machine that sees no lock: an `up` waits for a pod as long as for its youngest."""
    young = PodFacts("p2", f"{PREFIX}slot-02-00000001", UID, created_at_s=NOW_S - 1200)
    blind = Signals(NOW_S, silent_s={})
    assert judge(OLD, [OLD, young], blind, RULES).kind is Kind.UNCLEAR
    assert judge(OLD, [OLD, young], replace(blind, updating=False), RULES).kind is Kind.ORPHAN
    foreign = replace(young, uid="other-00000001")
    assert judge(OLD, [OLD, foreign], blind, RULES).kind is Kind.ORPHAN


@pytest.mark.parametrize("rules", [replace(RULES, uid=""), replace(RULES, prefix="")])
def test_who_has_no_uid_or_no_prefix_owns_nothing(rules: Rules) -> None:
    pod = replace(OLD, uid=rules.uid)
    assert judge(pod, [pod], Signals(NOW_S, known_ids=frozenset()), rules).kind is Kind.FINE


def test_names_of_ours_are_told_from_those_of_a_stack_that_begins_alike() -> None:
    assert is_node_name(f"{PREFIX}slot-01-0badcafe", PREFIX)
    assert is_node_name(f"{PREFIX}slot-01-0badcafe-1", PREFIX), "a tailnet numbers the second of a name"
    assert not is_node_name(f"{PREFIX}eu-slot-01-0badcafe", PREFIX)
    assert not is_node_name(f"{PREFIX}slot-01", PREFIX)
    assert not is_node_name("slot-01-0badcafe", "")
