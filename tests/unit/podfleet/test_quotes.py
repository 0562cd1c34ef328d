"""Money in a plan: what is shown, and where it stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet.errors import ConfigError
from podfleet.gpus import Basis
from podfleet.placement import Candidate
from podfleet.quotes import Limits, Quote, pods_within, quote, require_affordable

SMALL = Candidate("small", "COMMUNITY", None, 0.2, 0.0004, "HIGH", Basis.BY_RATIO)
BIG = Candidate("big", "SECURE", None, 1.0, 0.001, "HIGH")


def quoted(*candidates: Candidate, limit: float = 0.0, wanted: str = "ab", max_pods: int = 4) -> Quote:
    return quote(
        candidates,
        running_usd_per_hr={"a": 0.1},
        wanted=list(wanted),
        limits=Limits(max_pods, limit),
        why_unknown="no offer fits",
    )


def test_pods_that_run_count_at_their_own_price_and_new_ones_at_the_first_candidates() -> None:
    found = quoted(SMALL, BIG)
    assert (found.now_usd_per_hr, found.most_usd_per_hr) == (0.1, 4.0)
    assert found.then_usd_per_hr == pytest.approx(0.3)
    assert str(found) == (
        "$0.10/h now → $0.30/h then (1 → 2 pods, new ones on small COMMUNITY at $0.20/h (offers: $0.20 to $1.00/h), "
        "$0.0004 per hour of audio (estimated by ratio); at most $4.00/h with 4 pods)"
    )


def test_one_offer_has_no_range_and_the_guard_bounds_the_most() -> None:
    assert str(quoted(BIG, limit=2.5)) == (
        "$0.10/h now → $1.10/h then (1 → 2 pods, new ones on big SECURE at $1.00/h, "
        "$0.001 per hour of audio (planning figure); at most $2.50/h with 4 pods)"
    )


def test_without_a_candidate_it_says_why() -> None:
    assert str(quoted()) == "$0.10/h now → price unknown: no offer fits (1 → 2 pods)"


def test_a_candidate_whose_price_nobody_knows_has_none_to_show() -> None:
    blind = Candidate("small", "SECURE", None, 0.0, 0.0, "UNKNOWN")
    assert quoted(blind).then_usd_per_hr is None
    assert quoted(blind, BIG).first == BIG


def test_a_plan_that_is_dearer_than_the_limit_names_the_key_and_both_numbers() -> None:
    with pytest.raises(ConfigError) as caught:
        require_affordable(quoted(BIG, wanted="abc"), 2.0)
    assert str(caught.value) == (
        "podfleet:maxUsdPerHour: the plan costs $2.10/h with 3 pods, the limit is $2.00/h: "
        "ask for fewer or cheaper pods, or raise it"
    )


def test_a_fleet_over_its_limit_may_shrink() -> None:
    require_affordable(quote([BIG], running_usd_per_hr={"a": 3, "b": 3}, wanted=["a"], limits=Limits(4)), 1.0)


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0.01, 9), st.sampled_from([0.0, 0.5, 5.0]))
def test_it_stops_exactly_what_makes_the_fleet_dearer_than_the_limit(
    running: int, wanted: int, price: float, limit: float
) -> None:
    now = {f"old-{number}": 0.3 for number in range(running)}
    candidate = Candidate("g", "SECURE", None, price, price, "HIGH")
    names = [f"new-{number}" for number in range(wanted)]
    found = quote([candidate], running_usd_per_hr=now, wanted=names, limits=Limits(9, limit))
    too_dear = bool(limit) and wanted * price > max(limit, running * 0.3) + 1e-9
    try:
        require_affordable(found, limit)
    except ConfigError:
        assert too_dear
    else:
        assert not too_dear


@given(st.floats(0.1, 20), st.lists(st.floats(0, 5), max_size=6), st.floats(0.05, 5))
def test_a_limit_pays_for_what_runs_and_for_as_many_more_as_stay_within_it(
    limit: float, running: list[float], new: float
) -> None:
    pods = pods_within(limit, running, new)
    assert pods is not None
    more = pods - len(running)
    assert more >= 0
    assert more == 0 or sum(running) + more * new <= limit + 1e-6
    assert sum(running) + (more + 1) * new > limit - 1e-6


def test_without_a_price_nobody_can_say_how_many_a_limit_pays_for() -> None:
    assert pods_within(5.0, [0.2], None) is None
