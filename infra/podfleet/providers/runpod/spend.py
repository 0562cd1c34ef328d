"""The spend guard: no POST that would make the fleet bigger or dearer than the stack's limits.

`PodCore` reserves just before each POST and settles when its outcome is known. The rules are in `spend_rules`, what is
remembered in `spend_book`. What is guaranteed, and what is not: docs/decisions/0010-spend-guard.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from podfleet.errors import ProviderError, SpendLimit
from podfleet.providers.runpod.census import Snapshot
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.spend_book import Book, Page, key_of, lives, this_process
from podfleet.providers.runpod.spend_rules import (
    DAY_S,
    DaySum,
    Hold,
    Listed,
    Moment,
    Run,
    SpendLimits,
    Terms,
    day_sum,
    is_due,
    refusal,
    standing,
)
from podfleet.providers.runpod.wire import PodView
from podfleet.providers.runpod.wire_account import BillRecord

log = structlog.get_logger()
FRESH_S = 2.0
BILL_GOOD_S = 300.0  # RunPod charges every five minutes
BILL_RETRY_S = 600.0
KEPT_S = 2 * DAY_S


class Spends(Protocol):
    """What `PodCore` needs of a spend guard."""

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        """Checked and reserved under one lock. Raises SpendLimit: then nothing is reserved, and no POST may follow."""

    def settle(self, name: str, pod_id: str | None) -> None:
        """The POST's outcome: the pod's id; None where no pod came of it. Not called while nobody knows."""


class NoSpend:
    """No limits: for tests, and for callers that rent nothing."""

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        """Let all pass."""

    def settle(self, name: str, pod_id: str | None) -> None:
        """Nothing was reserved."""


class SeesPods(Protocol):
    """The part of the census that is needed here."""

    def recent(self) -> Snapshot: ...
    def now(self) -> Snapshot: ...
    def was_ended(self, pod_id: str) -> bool: ...


class ReadsBills(Protocol):
    """The part of the client that is needed here."""

    def pod_billing(self, *, start_s: float, end_s: float, bucket: str = "hour") -> tuple[BillRecord, ...]: ...


class Bills:
    """The account's pod bills of the last 24 hours by pod, read every few minutes. An unreadable bill stops nobody."""

    def __init__(self, client: ReadsBills, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._usd: Mapping[str, float] = {}
        self._next_s = float("-inf")

    def recent(self) -> Mapping[str, float]:
        """The last ones that could be read. Buckets that reach into the window count in full."""
        with self._lock:
            if self._clock.monotonic_s() >= self._next_s:
                self._usd = self._read()
            return self._usd

    def _read(self) -> Mapping[str, float]:
        now_s = self._clock.now_s()
        try:
            records = self._client.pod_billing(start_s=now_s - DAY_S, end_s=now_s)
        except ProviderError as error:
            self._next_s = self._clock.monotonic_s() + BILL_RETRY_S
            advice = "podfleet:maxUsdPerDay counts only the pods that are known here"
            log.warning("spend.bill_unread", reason=str(error), so=advice)
            return self._usd
        self._next_s = self._clock.monotonic_s() + BILL_GOOD_S
        sums: dict[str, float] = {}
        for record in records:
            sums[record.pod_id] = sums.get(record.pod_id, 0.0) + record.usd
        return sums


@dataclass(frozen=True, slots=True)
class Owner:
    """Which process this is, and how it knows of others."""

    name: str
    lives: Callable[[str], bool]


class SpendGuard:
    """Thread-safe. Two of them share a fleet by its book."""

    def __init__(
        self,
        limits: SpendLimits,
        census: SeesPods,
        bills: Bills,
        book_of: Callable[[str], Book],
        clock: Clock,
        terms: Terms,
        owner: Owner | None = None,
    ) -> None:
        self._limits = limits
        self._census = census
        self._bills = bills
        self._book_of = book_of
        self._clock = clock
        self._terms = terms
        self._owner = owner or Owner(this_process(), lives)
        self._lock = threading.Lock()
        self._books: dict[str, Book] = {}
        self._uids: dict[str, str] = {}  # name of a reservation → whose fleet
        self._newest: Snapshot | None = None

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        """Checked and reserved under one lock. Raises SpendLimit: then nothing is reserved, and no POST may follow.

        A refusal by a list that is some seconds old is looked at again: it may show pods that have ended since.
        """
        if not self._limits.any:
            return
        bills = self._bills.recent() if self._limits.max_usd_per_day else {}
        hold = Hold(self._owner.name, name, usd_per_hr, self._clock.now_s())
        snapshot = self._census.recent()
        refused = self._book(hold, uid, snapshot, bills)
        if refused and self._clock.monotonic_s() - snapshot.asked_s > FRESH_S:
            refused = self._book(hold, uid, self._census.now(), bills)
        if refused:
            raise refused

    def settle(self, name: str, pod_id: str | None) -> None:
        """The POST's outcome: the pod's id; None where no pod came of it. Not called while nobody knows.

        Never raises: a pod that exists must not be lost over its bookkeeping.
        """
        try:
            with self._lock:
                if uid := self._uids.get(name):
                    self._settle(uid, name, pod_id)
        except ProviderError as error:
            log.warning("spend.unsettled", name=name, pod_id=pod_id, reason=str(error))

    def _settle(self, uid: str, name: str, pod_id: str | None) -> None:
        key, now_s = key_of(self._owner.name, name), self._clock.now_s()
        with self._page_of(uid).open() as page:
            hold = page.holds.pop(key, None)
            if hold and pod_id:
                page.holds[key] = replace(hold, pod_id=pod_id, settled_s=now_s)
                page.runs[pod_id] = Run(hold.usd_per_hr, hold.at_s, now_s)

    def _book(self, hold: Hold, uid: str, snapshot: Snapshot, bills: Mapping[str, float]) -> SpendLimit | None:
        """Judge by the newest list that this guard has seen, and write the reservation down; or answer why not."""
        with self._lock, self._page_of(uid).open() as page:
            newest = self._newest = _newer(snapshot, self._newest)
            listed = self._look(page, uid, newest)
            _give_up_dead(page, hold.name, self._owner)
            self._drop(page, listed, self._asked_s(newest))
            others = [each for key, each in page.holds.items() if key != key_of(hold.owner, hold.name)]
            spent = self._spent(page, bills)
            refused = refusal(self._limits, standing(listed, others, spent), hold.usd_per_hr, name=hold.name)
            if refused is None:
                before = frozenset(pod.id for pod in listed if pod.name == hold.name)
                page.holds[key_of(hold.owner, hold.name)] = replace(hold, before=before)
                self._uids[hold.name] = uid
            return refused

    def _page_of(self, uid: str) -> Book:
        if uid not in self._books:
            self._books[uid] = self._book_of(uid)
        return self._books[uid]

    def _look(self, page: Page, uid: str, snapshot: Snapshot) -> list[Listed]:
        """Our pods; the page learns which pods are ours, until when they lived, and which are another's."""
        now_s, asked_s = self._clock.now_s(), self._asked_s(snapshot)
        listed = []
        for pod in snapshot.pods:
            if pod.uid != uid:
                page.foreign[pod.id] = asked_s
            else:
                run = page.runs.get(pod.id)
                listed.append(_listed(pod, run, now_s))
                if pod.live:
                    until_s = max(asked_s, run.until_s) if run else asked_s
                    page.runs[pod.id] = Run(listed[-1].usd_per_hr, listed[-1].since_s, until_s)
        oldest_s = now_s - KEPT_S
        page.foreign = {pod_id: seen_s for pod_id, seen_s in page.foreign.items() if seen_s > oldest_s}
        page.runs = {pod_id: run for pod_id, run in page.runs.items() if run.until_s > oldest_s}
        return listed

    def _drop(self, page: Page, listed: list[Listed], asked_s: float) -> None:
        """Strike out holds that count no more, and note which pods are seen."""
        ids = {pod.id for pod in listed}
        living = {hold.owner for hold in page.holds.values() if self._owner.lives(hold.owner)} | {self._owner.name}
        ended = {hold.pod_id for hold in page.holds.values() if self._census.was_ended(hold.pod_id)}
        moment = Moment(asked_s, self._owner.name, living, ended)
        for key, hold in list(page.holds.items()):
            if hold.pod_id in ids:
                page.holds[key] = replace(hold, seen_s=asked_s)
            elif not hold.shown_in(listed) and not is_due(hold, moment, self._terms):
                del page.holds[key]

    def _spent(self, page: Page, bills: Mapping[str, float]) -> DaySum:
        if not self._limits.max_usd_per_day:
            return DaySum()
        now_s = self._clock.now_s()
        alive = {hold.pod_id for hold in page.holds.values()}
        runs = {pod_id: replace(run, until_s=now_s) if pod_id in alive else run for pod_id, run in page.runs.items()}
        return day_sum(bills, runs, page.foreign, now_s=now_s)

    def _asked_s(self, snapshot: Snapshot) -> float:
        """The epoch's second in which a list was asked for."""
        return self._clock.now_s() - (self._clock.monotonic_s() - snapshot.asked_s)


def _newer(one: Snapshot, other: Snapshot | None) -> Snapshot:
    return other if other and other.asked_s > one.asked_s else one


def _listed(pod: PodView, run: Run | None, now_s: float) -> Listed:
    """A pod that is not alive costs what the API says; a live one at least what it was rented for."""
    usd_per_hr = max(pod.cost_usd_per_hr, run.usd_per_hr) if run and pod.live else pod.cost_usd_per_hr
    since_s = pod.created_at_s or (run.since_s if run else now_s - DAY_S)
    return Listed(pod.id, pod.name, usd_per_hr, since_s, pod.live)


def _give_up_dead(page: Page, name: str, owner: Owner) -> None:
    """What a dead process had reserved for this very pod is reserved anew: `create` has looked for the pod by name."""
    for key, hold in list(page.holds.items()):
        if hold.name == name and not hold.pod_id and hold.owner != owner.name and not owner.lives(hold.owner):
            del page.holds[key]


def terms_of(*, absence_interval_s: float, reconcile_s: float) -> Terms:
    """From the settings that say how late a list or an answer may be."""
    return Terms(lag_s=2 * absence_interval_s, lost_s=reconcile_s)
