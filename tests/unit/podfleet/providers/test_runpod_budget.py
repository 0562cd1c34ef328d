"""The account's limit of calls: learned from the headers, kept by all threads, the urgent calls first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runpod_fakes import FakeClock, FakeRunpod, client_of, problem

from podfleet.errors import Interrupted, RateLimited
from podfleet.providers.runpod import pacing
from podfleet.providers.runpod.budget import Budget, Kind, Quota, quotas
from podfleet.providers.runpod.client import Access, RunpodClient, kind_of
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.pacing import Pacer
from podfleet.providers.runpod.stopping import Stopping

HEADERS = {
    "RateLimit": '"minute";r=12;t=31, "hour";r=2800;t=1812, "day";r=49500;t=45012',
    "RateLimit-Policy": '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400',
}


def test_the_headers_say_what_is_left_and_until_when() -> None:
    assert quotas(HEADERS)[0] == Quota("minute", 12, 31.0, 60, 60)
    assert [quota.name for quota in quotas(HEADERS)] == ["minute", "hour", "day"]


@pytest.mark.parametrize("text", ["", "12", '"minute"', '"minute";r=x;t=1', "r=1;t=2", '"minute";r=1', ",,;"])
def test_headers_that_cannot_be_read_limit_nothing(text: str) -> None:
    assert quotas({"RateLimit": text}) == ()


def test_a_window_without_a_policy_counts_too() -> None:
    assert quotas({"ratelimit": '"x";r=1;t=2'} | {"RateLimit": '"x";r=1;t=2'}) == (Quota("x", 1, 2.0),)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/pods", Kind.LIST),
        ("GET", "/pods/a/logs", Kind.READ),
        ("GET", "/catalog/gpus", Kind.READ),
        ("POST", "/pods", Kind.CREATE),
        ("DELETE", "/pods/a", Kind.END),
        ("POST", "/account/secrets", Kind.CHANGE),
        ("DELETE", "/account/secrets/a", Kind.CHANGE),
    ],
)
def test_each_call_has_its_urgency(method: str, path: str, kind: Kind) -> None:
    assert kind_of(method, path) is kind


def test_renting_leaves_a_tenth_to_ends_and_looks() -> None:
    budget = Budget()
    budget.start(0.0)
    budget.learn([Quota("minute", 6, 40.0, 60, 60)], 0.0, jitter_s=0.0)
    budget.done()
    assert budget.wait_s(Kind.CREATE, 1.0) == pytest.approx(39.1)
    assert budget.wait_s(Kind.END, 1.0) == 0
    assert budget.wait_s(Kind.LIST, 1.0) == 0


def test_calls_of_others_count() -> None:
    budget = Budget()
    for now_s, left in ((0.0, 50), (1.0, 40)):  # nine calls between the two were not ours
        budget.start(now_s)
        budget.learn([Quota("minute", left, 60.0 - now_s, 60, 60)], now_s, jitter_s=0.0)
        budget.done()
    started = 0
    while not budget.wait_s(Kind.END, 2.0):
        budget.start(2.0)
        budget.done()
        started += 1
    assert started == 40


def test_a_late_answer_of_the_window_before_does_not_close_the_new_one() -> None:
    budget = Budget()
    budget.start(0.0)
    budget.learn([Quota("minute", 59, 10.0, 60, 60)], 0.0, jitter_s=0.0)
    budget.start(11.0)  # a new minute has begun
    budget.learn([Quota("minute", 0, 1.0, 60, 60)], 11.1, jitter_s=0.0)
    assert budget.wait_s(Kind.CREATE, 11.2) == 0


def test_at_the_start_and_after_a_refusal_one_call_goes_first() -> None:
    budget = Budget()
    assert budget.may_start(0.0)
    budget.start(0.0)
    assert not budget.may_start(0.1)
    assert budget.may_start(6.0), "a call that hangs does not hold up the others for ever"
    budget.learn([], 0.2, jitter_s=0.0)
    assert budget.may_start(0.3)
    budget.refuse(7.0, 1.0, jitter_s=0.5)
    assert budget.wait_s(Kind.END, 1.0) == 7.5
    budget.done()
    assert budget.may_start(8.5)
    budget.start(8.5)
    assert not budget.may_start(8.6)


def test_lists_move_apart_only_where_little_is_left() -> None:
    def gap_s(left: int) -> float:
        budget = Budget()
        budget.start(0.0)
        budget.learn([Quota("minute", left, 30.0, 60, 60)], 0.0, jitter_s=0.0)
        return budget.list_gap_s(0.0)

    assert gap_s(31) == 0
    assert gap_s(20) == pytest.approx(3.0, abs=0.05)
    assert gap_s(1) == 5, "what was ended has to be seen gone"


class Limited:
    """A server with fixed windows, as RunPod documents it: each call counts, a refused one, too."""

    def __init__(self, limit: int, length_s: float) -> None:
        self.limit, self.length_s = limit, length_s
        self.start_s, self.used, self.refused = -1e9, 0, 0

    def call(self, now_s: float) -> tuple[bool, Quota]:
        if now_s - self.start_s >= self.length_s:
            self.start_s, self.used = now_s, 0
        self.used += 1
        allowed = self.used <= self.limit
        self.refused += not allowed
        rest_s = max(1, -int(-(self.start_s + self.length_s - now_s) // 1))
        return allowed, Quota("minute", max(0, self.limit - self.used), rest_s, self.limit, self.length_s)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(2, 70),
    st.lists(st.tuples(st.sampled_from(list(Kind)), st.floats(0.01, 3.0)), min_size=1, max_size=150),
    st.integers(1, 32),
    st.integers(0, 40),
)
def test_alone_on_the_account_no_call_is_refused_and_all_are_made_in_time(
    limit: int, calls: list[tuple[Kind, float]], at_once: int, before: int
) -> None:
    """Discrete events: `at_once` threads, each call takes its time, the server counts when half of it is over."""
    server, budget, now_s = Limited(limit, 60.0), Budget(), 1000.0
    for _ in range(min(before, limit - 1)):
        server.call(now_s)
    todo = sorted(enumerate(calls), key=lambda each: each[1][0])
    events: list[tuple[float, int, Callable[[], Any]]] = []
    flying = made = number = 0

    def at(moment_s: float, action: Callable[[], Any]) -> None:
        nonlocal number
        number += 1
        events.append((moment_s, number, action))

    def answer(quota: Quota) -> None:
        nonlocal flying, made
        budget.learn([quota], now_s, jitter_s=0.0)
        budget.done()
        flying, made = flying - 1, made + 1

    def arrive(half_s: float) -> None:
        _, quota = server.call(now_s)
        at(now_s + half_s, lambda: answer(quota))

    while todo or events:
        ready = [each for each in todo if not budget.wait_s(each[1][0], now_s)]
        if ready and flying < at_once and budget.may_start(now_s):
            todo.remove(ready[0])
            half_s = ready[0][1][1] / 2
            budget.start(now_s)
            flying += 1
            at(now_s + half_s, lambda half_s=half_s: arrive(half_s))  # type: ignore[misc]
            continue
        waits = [budget.wait_s(each[1][0], now_s) for each in todo]
        next_event = min(events, default=(float("inf"), 0, None))
        now_s = min([next_event[0], *(now_s + wait for wait in waits if wait)])
        while events and min(events)[0] <= now_s:
            events.sort(key=lambda event: event[:2])
            events.pop(0)[2]()
    assert made == len(calls)
    assert server.refused == 0
    usable = max(1, limit - -(-limit // 10))
    windows = (len(calls) + before) // usable + 1
    longest_s = sum(sorted((call[1] for call in calls), reverse=True)[:1]) + sum(c[1] for c in calls) / at_once
    assert now_s - 1000.0 <= 62 * windows + longest_s + 10


def headers_of(quota: Quota) -> dict[str, str]:
    return {
        "RateLimit": f'"minute";r={quota.left};t={quota.ends_in_s:.0f}',
        "RateLimit-Policy": f'"minute";q={quota.limit};w={quota.length_s:.0f}',
    }


def test_many_threads_keep_to_the_limit_without_a_single_refusal() -> None:
    server, lock = Limited(12, 1.0), threading.Lock()

    def answer(_: httpx.Request) -> httpx.Response:
        with lock:
            allowed, quota = server.call(time.monotonic())
        status = 200 if allowed else 429
        return httpx.Response(status, json={"pods": []}, headers={**headers_of(quota), "Retry-After": "1"})

    client = RunpodClient(Access("http://127.0.0.1:9", "key"), transport=httpx.MockTransport(answer))
    threads = [threading.Thread(target=client.list_pods) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.refused == 0


def test_a_refusal_stops_all_threads_until_the_server_said() -> None:
    fake, clock = FakeRunpod(), FakeClock()
    fake.next("get_pod", lambda _: problem(429, "rate limit", **{"Retry-After": "7"}))
    client = client_of(fake, clock)
    client.list_pods()
    assert 7 <= clock.slept[0] <= 8
    assert len(fake.requests) == 2


def test_a_used_up_hour_is_an_error_at_once_and_no_call() -> None:
    fake, clock = FakeRunpod(), FakeClock()
    fake.next("get_pod", lambda _: httpx.Response(200, json={"pods": []}, headers={"RateLimit": '"hour";r=0;t=1800'}))
    client = client_of(fake, clock)
    client.list_pods()
    with pytest.raises(RateLimited, match=r"it asks to wait 180[01] s more"):
        client.list_pods()
    assert len(fake.requests) == 1


def test_a_call_that_was_never_sent_counts_for_nothing() -> None:
    pacer = Pacer(FakeClock(), patience_s=130.0, jitter_s=lambda: 0.0)
    with pacer.turn(Kind.LIST):
        pacer.learn(HEADERS)
    for _ in range(50):
        with pacer.turn(Kind.END) as turn:
            turn.not_sent()


@pytest.fixture
def one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "may_start", lambda budget, _: budget._in_flight == 0)


def test_what_ends_a_cost_goes_before_what_rents_and_that_before_looks(one_at_once: None) -> None:
    pacer, order = Pacer(RealClock(), patience_s=130.0), []

    def call(kind: Kind) -> None:
        with pacer.turn(kind):
            order.append(kind)

    with pacer.turn(Kind.READ):
        threads = [threading.Thread(target=call, args=(kind,)) for kind in reversed(Kind)]
        for thread in threads:
            thread.start()
        while len(pacer._queue) < len(threads):
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(Kind)


def test_who_waits_for_his_turn_stops_when_told_to(one_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping, pacer = Stopping(), Pacer(RealClock(), patience_s=130.0)
    monkeypatch.setattr(pacing, "STOPPING", stopping)
    with pacer.turn(Kind.READ):
        stopping.ask("Ctrl-C")
        with pytest.raises(Interrupted, match="Ctrl-C"), pacer.turn(Kind.CREATE):
            pass
    with pacer.turn(Kind.CREATE):
        assert not pacer._queue, "who gave up is not waited for"
