"""Billing history as tables: windows, buckets, and dollars that are neither lost nor counted twice."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.billing import BUCKETS, Charge, records, window
from localcloud.errors import Problem

NOW = datetime(2026, 11, 24, 16, 30, 12, tzinfo=UTC)  # a Tuesday


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("params", "start", "end"),
    [
        ({}, "2026-10-25T00:00:00Z", "2026-11-25T00:00:00Z"),
        ({"bucketSize": "hour"}, "2026-10-25T16:00:00Z", "2026-11-24T17:00:00Z"),
        ({"bucketSize": "week"}, "2026-10-19T00:00:00Z", "2026-11-30T00:00:00Z"),
        ({"bucketSize": "month"}, "2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ({"bucketSize": "year"}, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        (
            {"startTime": "2026-11-01T00:00:00Z", "endTime": "2026-11-03T00:00:00Z"},
            "2026-11-01T00:00:00Z",
            "2026-11-03T00:00:00Z",
        ),
        (
            {"startTime": "2026-11-01T01:00:00+02:00", "endTime": "2026-11-02T00:00:01Z"},
            "2026-10-31T00:00:00Z",
            "2026-11-03T00:00:00Z",
        ),
        ({"lastN": "1"}, "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"),
        ({"lastN": "3", "bucketSize": "hour"}, "2026-11-24T14:00:00Z", "2026-11-24T17:00:00Z"),
        ({"lastN": "12", "bucketSize": "month"}, "2025-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ({"lastN": "2", "bucketSize": "year"}, "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    ],
)
def test_a_window_is_snapped_to_whole_buckets(params: dict[str, str], start: str, end: str) -> None:
    asked = window(params, NOW.timestamp())
    assert asked.json() == {"startTime": start, "endTime": end, "bucketSize": params.get("bucketSize", "day")}


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"lastN": "1", "startTime": "2026-11-01T00:00:00Z"}, 400),
        ({"lastN": "1", "endTime": "2026-11-01T00:00:00Z"}, 400),
        ({"startTime": "2026-11-02T00:00:00Z", "endTime": "2026-11-02T00:00:00Z"}, 400),
        ({"lastN": "99999", "bucketSize": "year"}, 400),
        ({"lastN": "0"}, 422),
        ({"lastN": "one"}, 422),
        ({"bucketSize": "minute"}, 422),
        ({"startTime": "2026-11-01"}, 422),
        ({"startTime": "2026-11-01T00:00:00"}, 422),
        ({"endTime": "9999-12-31T00:00:00Z"}, 422),
    ],
)
def test_a_window_that_cannot_be_is_refused(params: dict[str, str], status: int) -> None:
    with pytest.raises(Problem) as caught:
        window(params, NOW.timestamp())
    assert caught.value.status == status


def test_a_charge_is_cut_at_midnight_and_a_bucket_without_one_is_left_out() -> None:
    asked = window({"startTime": "2026-11-01T00:00:00Z", "endTime": "2026-11-08T00:00:00Z"}, NOW.timestamp())
    first = Charge("a", "gpuAmount", at("2026-11-01T23:00:00+00:00"), at("2026-11-02T02:00:00+00:00"), 0.5)
    second = Charge("b", "cpuAmount", at("2026-11-05T00:00:00+00:00"), at("2026-11-05T00:30:00+00:00"), 1.0)
    found = [(start.day, amounts) for start, _, amounts in records([first, second], asked)]
    assert found == [
        (1, {("a", "gpuAmount"): 0.5}),
        (2, {("a", "gpuAmount"): 1.0}),
        (5, {("b", "cpuAmount"): 0.5}),
    ]


SPANS = st.lists(st.tuples(st.floats(0, 1e8), st.floats(0, 1e6), st.floats(0, 10)), max_size=5)


@given(spans=SPANS, bucket=st.sampled_from(BUCKETS))
def test_the_buckets_of_all_time_add_up_to_the_whole(spans: list[tuple[float, float, float]], bucket: str) -> None:
    zero_s = (NOW - timedelta(days=3000)).timestamp()
    charges = [Charge(str(n), "k", zero_s + s, zero_s + s + length, usd) for n, (s, length, usd) in enumerate(spans)]
    params = {"startTime": "2000-01-01T00:00:00Z", "endTime": "2040-01-01T00:00:00Z", "bucketSize": bucket}
    rows = list(records(charges, window(params, NOW.timestamp())))
    total = sum(sum(amounts.values()) for _, _, amounts in rows)
    whole = sum(charge.usd_per_hr * (charge.end_s - charge.start_s) / 3600 for charge in charges)
    assert math.isclose(total, whole, rel_tol=1e-6, abs_tol=1e-6)
    assert [start for start, _, _ in rows] == sorted({start for start, _, _ in rows})
    assert all(start < end for start, end, _ in rows)
