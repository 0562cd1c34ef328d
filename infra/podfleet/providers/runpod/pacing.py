"""One gate for all calls of a process: whoever calls RunPod waits here for his turn, the most urgent first.

Used by `client` alone. When it is whose turn is `budget`'s to say; how to wait for it is in here.
"""

from __future__ import annotations

import bisect
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from podfleet.errors import RateLimited
from podfleet.providers.runpod.budget import Budget, Kind, quotas
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.stopping import STOPPING

log = structlog.get_logger()
AT_ONCE = {Kind.END: 32, Kind.CREATE: 64, Kind.CHANGE: 8, Kind.LIST: 4, Kind.READ: 16}  # nobody likes a herd
SLICE_S = 0.25  # how often somebody looks again whose turn depends on other threads
TOLD_FROM_S = 5.0  # a shorter wait is no news


@dataclass(frozen=True, slots=True, order=True)
class _Waiting:
    kind: Kind
    number: int


@dataclass(slots=True)
class Turn:
    """One call that may be made now. `answered` before the turn ends, where there is an answer."""

    _pacer: Pacer
    sent: bool = field(default=True)

    def answered(self, headers: Mapping[str, str]) -> None:
        self._pacer.learn(headers)

    def refused(self, retry_in_s: float) -> None:
        """429: all wait."""
        self._pacer.refuse(retry_in_s)

    def not_sent(self) -> None:
        """It does not count."""
        self.sent = False


class Pacer:
    """Thread-safe; one per client."""

    def __init__(self, clock: Clock, *, patience_s: float, jitter_s: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._jitter_s = jitter_s
        self._budget = Budget()
        self._cond = threading.Condition()
        self._queue: list[_Waiting] = []
        self._numbers = itertools.count()
        self._busy: Counter[Kind] = Counter()
        self._told_until_s = 0.0

    @contextmanager
    def turn(self, kind: Kind) -> Iterator[Turn]:
        """Waits, then lets one call be made. RateLimited where the wait would be longer than our patience."""
        self._enter(kind)
        turn = Turn(self)
        try:
            yield turn
        finally:
            with self._cond:
                self._busy[kind] -= 1
                if turn.sent:
                    self._budget.done()
                else:
                    self._budget.drop()
                self._cond.notify_all()

    def learn(self, headers: Mapping[str, str]) -> None:
        """What the headers of an answer say about the account's limits."""
        with self._cond:
            self._budget.learn(quotas(headers), self._clock.monotonic_s(), jitter_s=self._jitter_s())

    def refuse(self, retry_in_s: float) -> None:
        """Nobody calls before that."""
        with self._cond:
            self._budget.refuse(retry_in_s, self._clock.monotonic_s(), jitter_s=self._jitter_s())

    def list_gap_s(self) -> float:
        """How far apart lists of all pods have to be now."""
        with self._cond:
            return self._budget.list_gap_s(self._clock.monotonic_s())

    def _enter(self, kind: Kind) -> None:
        with self._cond:
            me = _Waiting(kind, next(self._numbers))
            bisect.insort(self._queue, me)
        try:
            while (wait_s := self._try(me)) is not None:
                self._wait(wait_s)
        except BaseException:
            with self._cond:
                self._queue.remove(me)
                self._cond.notify_all()
            raise

    def _try(self, me: _Waiting) -> float | None:
        """None: it is my turn, and I have taken it. Else how long to wait, and 0 where another thread had to move."""
        with self._cond:
            now_s = self._clock.monotonic_s()
            if self._next(now_s) is me:
                self._queue.remove(me)
                self._budget.start(now_s)
                self._busy[me.kind] += 1
                self._cond.notify_all()  # the next one may go, too
                return None
            wait_s = self._budget.wait_s(me.kind, now_s)
            if not wait_s:
                self._cond.wait(SLICE_S)
            return wait_s

    def _next(self, now_s: float) -> _Waiting | None:
        if not self._budget.may_start(now_s):
            return None
        return next(
            (
                each
                for each in self._queue
                if self._busy[each.kind] < AT_ONCE[each.kind] and not self._budget.wait_s(each.kind, now_s)
            ),
            None,
        )

    def _wait(self, wait_s: float) -> None:
        STOPPING.check()
        if wait_s > self._patience_s:
            raise RateLimited("RunPod's limit of calls is used up", retry_in_s=wait_s).given_up()
        if wait_s:
            self._tell(wait_s)
            self._clock.sleep(wait_s)

    def _tell(self, wait_s: float) -> None:
        """One line per wait, whoever waits."""
        with self._cond:
            until_s = self._clock.monotonic_s() + wait_s
            news = wait_s >= TOLD_FROM_S and until_s > self._told_until_s + TOLD_FROM_S
            if news:
                self._told_until_s = until_s
            waiting = len(self._queue)
        if news:
            log.info("rate_limit.waiting", seconds=round(wait_s), calls=waiting)
