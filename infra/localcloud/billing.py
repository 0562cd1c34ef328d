"""Billing history: what was charged, cut into hours, days, weeks, months or years. Called by `billing_api`.

PURE. Times are UTC; weeks begin on Monday. A pod or volume has a record for each bucket in which it was charged.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from localcloud.errors import Problem
from localcloud.podlog import rfc3339
from localcloud.wire_base import instant, matching

BUCKETS = ("hour", "day", "week", "month", "year")
DEFAULT_DAYS = 30
YEARS = (1, 9998)  # a bucket more can still be written
_RULES = {"bucketSize": "|".join(BUCKETS), "lastN": "[1-9][0-9]{0,8}"}


@dataclass(frozen=True, slots=True)
class Window:
    """The time asked about, snapped to whole buckets; the end is exclusive."""

    start: datetime
    end: datetime
    bucket: str

    def json(self) -> dict[str, Any]:
        """As an answer echoes it."""
        return {"startTime": _text(self.start), "endTime": _text(self.end), "bucketSize": self.bucket}


@dataclass(frozen=True, slots=True)
class Charge:
    """A time in which something cost so much an hour."""

    id: str
    kind: str
    start_s: float
    end_s: float
    usd_per_hr: float


def window(params: Mapping[str, str], now_s: float) -> Window:
    """From the query; 400 for parameters that exclude each other, 422 for malformed ones."""
    given = matching(params, _RULES)
    bucket = given.get("bucketSize", "day")
    times = {key: instant(key, params[key], YEARS) for key in ("startTime", "endTime") if key in params}
    now = datetime.fromtimestamp(now_s, UTC)
    if "lastN" in given:
        if times:
            raise Problem(400, "lastN and startTime/endTime exclude each other")
        return _last(int(given["lastN"]), bucket, now)
    end = times.get("endTime", now)
    start = times.get("startTime", now - timedelta(days=DEFAULT_DAYS))
    if start >= end:
        raise Problem(400, "startTime must be before endTime")
    return Window(_floor(start, bucket), _ceiling(end, bucket), bucket)


def records(
    charges: Iterable[Charge], asked: Window
) -> Iterator[tuple[datetime, datetime, dict[tuple[str, str], float]]]:
    """(start, end, {(id, kind): dollars}) for each bucket with a charge, oldest first."""
    found: dict[datetime, dict[tuple[str, str], float]] = {}
    for charge in charges:
        for start, usd in _cut(charge, asked):
            amounts = found.setdefault(start, {})
            key = (charge.id, charge.kind)
            amounts[key] = amounts.get(key, 0.0) + usd
    for start in sorted(found):
        yield start, _next(start, asked.bucket), found[start]


def time_range(start: datetime, end: datetime) -> dict[str, Any]:
    """The bucket of a record."""
    return {"startTime": _text(start), "endTime": _text(end)}


def _cut(charge: Charge, asked: Window) -> Iterator[tuple[datetime, float]]:
    """A charge by buckets; only those that it touches are looked at."""
    first_s = max(charge.start_s, asked.start.timestamp())
    last_s = min(charge.end_s, asked.end.timestamp())
    at_s = first_s
    while at_s < last_s:
        start = _floor(datetime.fromtimestamp(at_s, UTC), asked.bucket)
        until_s = min(last_s, _next(start, asked.bucket).timestamp())
        yield start, charge.usd_per_hr * (until_s - at_s) / 3600
        at_s = until_s


def _last(count: int, bucket: str, now: datetime) -> Window:
    end = _next(_floor(now, bucket), bucket)
    try:
        start = _back(end, count, bucket)
    except (OverflowError, ValueError):
        raise Problem(400, f"lastN={count} goes back too far") from None
    return Window(start, end, bucket)


def _back(end: datetime, count: int, bucket: str) -> datetime:
    if bucket == "year":
        return end.replace(year=end.year - count)
    if bucket == "month":
        months = end.year * 12 + end.month - 1 - count
        return end.replace(year=months // 12, month=months % 12 + 1)
    return end - count * _length(bucket)


def _floor(when: datetime, bucket: str) -> datetime:
    hour = when.replace(minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return hour
    day = hour.replace(hour=0)
    if bucket == "week":
        return day - timedelta(days=day.weekday())
    return {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[bucket]


def _ceiling(when: datetime, bucket: str) -> datetime:
    start = _floor(when, bucket)
    return start if start == when else _next(start, bucket)


def _next(start: datetime, bucket: str) -> datetime:
    if bucket == "year":
        return start.replace(year=start.year + 1)
    if bucket == "month":
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start + _length(bucket)


def _length(bucket: str) -> timedelta:
    return {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[bucket]


def _text(when: datetime) -> str:
    return rfc3339(when.timestamp()).replace(".000000", "")
