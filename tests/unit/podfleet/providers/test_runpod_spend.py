"""The spend guard: what it counts, what it refuses and in which words, and that no interleaving gets past a limit."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from podfleet.errors import ApiUnavailable, ProviderError, SpendLimit
from podfleet.providers.runpod.census import Snapshot
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.settings import read_settings
from podfleet.providers.runpod.spend import Bills, Owner, SpendGuard
from podfleet.providers.runpod.spend_book import FileBook, MemoryBook, book_in, lives, this_process
from podfleet.providers.runpod.spend_rules import DaySum, Hold, Listed, Run, SpendLimits, Standing, Terms, refusal
from podfleet.providers.runpod.wire import PodView
from podfleet.providers.runpod.wire_account import BillRecord

UID, OTHER = "dev-00000001", "else-00000002"
TERMS = Terms(lag_s=20, lost_s=60)
HOUR_S = 3600.0
START_S = 1_800_000_000.0


@dataclass
class World:
    """Pods as they are, lists as the API gives them: some seconds old. The clock is moved by hand."""

    lag_s: float = 0.0
    t: float = 0.0
    pods: dict[str, PodView] = field(default_factory=dict)
    past: list[tuple[float, tuple[PodView, ...]]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def now_s(self) -> float:
        return START_S + self.t

    def monotonic_s(self) -> float:
        return self.t

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.t += max(0.0, seconds)

    def add(self, name: str, usd_per_hr: float = 1.0, *, uid: str = UID, age_s: float = 0.0, **more: Any) -> str:
        with self.lock:
            pod_id = f"pod{next(self.ids)}"
            made_s = self.now_s() - age_s
            pod = PodView(pod_id, name, "RUNNING", uid, cost_usd_per_hr=usd_per_hr, created_at_s=made_s)
            self.pods[pod_id] = replace(pod, **more)
            self.past.append((self.t, tuple(self.pods.values())))
        return pod_id

    def end(self, pod_id: str) -> None:
        with self.lock:
            self.pods.pop(pod_id, None)
            self.past.append((self.t, tuple(self.pods.values())))

    def listed(self) -> Snapshot:
        with self.lock:
            then = self.t - self.lag_s
            pods = next((pods for at, pods in reversed(self.past) if at <= then), ())
            return Snapshot(self.t, pods)


class Eyes:
    """A census: `recent` may be ten seconds old."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.last: Snapshot | None = None
        self.ended: set[str] = set()
        self.asked = 0

    def recent(self) -> Snapshot:
        return self.last if self.last and self.world.t - self.last.asked_s < 10 else self.now()

    def now(self) -> Snapshot:
        self.asked += 1
        self.last = self.world.listed()
        return self.last

    def was_ended(self, pod_id: str) -> bool:
        return pod_id in self.ended


@dataclass
class Ledger:
    """Billing that answers, or not."""

    bills: list[BillRecord] = field(default_factory=list)
    trouble: ProviderError | None = None
    reads: int = 0

    def pod_billing(self, *, start_s: float, end_s: float, bucket: str = "hour") -> tuple[BillRecord, ...]:
        self.reads += 1
        if self.trouble:
            raise self.trouble
        return tuple(bill for bill in self.bills if bill.end_s > start_s)

    def bill(self, pod_id: str, usd: float) -> None:
        self.bills.append(BillRecord(pod_id, START_S - HOUR_S, START_S, usd))


def guard_of(world: World, ledger: Ledger | None = None, folder: Path | None = None, **limits: Any) -> SpendGuard:
    owner, lock_clock = limits.pop("owner", None), limits.pop("lock_clock", world)
    book = MemoryBook() if folder is None else FileBook(folder, UID, lock_clock)
    bills = Bills(ledger or Ledger(), world)
    return SpendGuard(SpendLimits(**limits), Eyes(world), bills, lambda _: book, world, TERMS, owner)


def reserve(guard: SpendGuard, name: str, usd_per_hr: float = 1.0) -> None:
    guard.reserve(name=name, uid=UID, usd_per_hr=usd_per_hr)


# The words of a refusal


def test_each_limit_names_its_key_its_number_and_what_to_do() -> None:
    now = Standing(3, 4.5, DaySum(48.2, 3.1))
    limits = SpendLimits(max_pods=3)
    assert str(refusal(limits, now, 0.74, name="p-slot-04")) == (
        "p-slot-04 was not rented: podfleet:maxPods is 3, 3 of this fleet are there or on their way; "
        "raise it, or lower podfleet:pods"
    )
    limits = SpendLimits(max_usd_per_hour=5)
    assert str(refusal(limits, now, 0.74, name="p-slot-04")) == (
        "p-slot-04 was not rented: podfleet:maxUsdPerHour is $5.00/h, 3 pods cost $4.50/h, "
        "with this one ($0.74/h) it is $5.24/h; raise it, or ask for fewer pods"
    )
    limits = SpendLimits(max_usd_per_day=50)
    found = refusal(limits, now, 0.74, name="p-slot-04")
    assert str(found) == (
        "p-slot-04 was not rented: podfleet:maxUsdPerDay is $50.00, the last 24 h cost $48.20 "
        "($3.10 of it by ended pods of unknown owner), the next hour with this pod $5.24; "
        "raise it, or wait until the day is less"
    )
    assert found is not None
    assert (found.key, found.exit_code) == ("maxUsdPerDay", 1)


def test_exactly_at_a_limit_is_allowed() -> None:
    now = Standing(2, 0.1 + 0.1 + 0.1, DaySum())
    assert refusal(SpendLimits(3, 0.4, 0.4), now, 0.1, name="n") is None
    assert refusal(SpendLimits(0), Standing(0, 0, DaySum()), 0.1, name="n") is not None  # 0 pods are no pods


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan")])
def test_a_pod_without_a_known_price_is_not_rented_where_money_has_a_limit(price: float) -> None:
    now = Standing(0, 0, DaySum())
    found = refusal(SpendLimits(None, 5, 0), now, price, name="n")
    assert found is not None
    assert "price of this pod is not known" in str(found)
    assert refusal(SpendLimits(max_pods=1), now, price, name="n") is None


@given(
    st.lists(st.floats(0.01, 10), max_size=8),
    st.floats(0.01, 10),
    st.floats(0, 100),
    st.floats(0, 200),
    st.floats(0, 200),
)
def test_what_is_let_through_is_within_every_limit(
    prices: list[float], price: float, spent: float, per_hour: float, per_day: float
) -> None:
    now = Standing(len(prices), sum(prices), DaySum(spent))
    limits = SpendLimits(5, per_hour, per_day)
    if refusal(limits, now, price, name="n") is None:
        assert len(prices) + 1 <= 5
        assert not per_hour or sum(prices) + price <= per_hour + 1e-6
        assert not per_day or spent + sum(prices) + price <= per_day + 1e-6


# What counts


def test_without_limits_nothing_is_asked() -> None:
    world, ledger = World(), Ledger()
    guard = guard_of(world, ledger)
    reserve(guard, "a", 1e9)
    guard.settle("a", "pod1")
    assert ledger.reads == 0


def test_reservations_count_before_any_list_shows_them() -> None:
    guard = guard_of(World(), max_pods=2)
    reserve(guard, "a")
    reserve(guard, "b")
    with pytest.raises(SpendLimit, match="maxPods"):
        reserve(guard, "c")
    guard.settle("b", None)
    reserve(guard, "c")


def test_a_pod_that_is_listed_before_its_post_has_answered_counts_once() -> None:
    world = World()
    guard = guard_of(world, max_pods=2)
    reserve(guard, "a")
    pod_id = world.add("a")
    world.sleep(30)
    reserve(guard, "b")
    guard.settle("a", pod_id)
    with pytest.raises(SpendLimit):
        reserve(guard, "c")


def test_a_second_pod_of_a_name_counts_as_one_more() -> None:
    world = World()
    guard = guard_of(world, max_pods=2)
    world.add("a")
    reserve(guard, "a")
    with pytest.raises(SpendLimit):
        reserve(guard, "b")


def test_a_pod_that_no_list_shows_yet_keeps_its_room() -> None:
    world = World(lag_s=300)
    guard = guard_of(world, max_pods=1)
    reserve(guard, "a")
    guard.settle("a", world.add("a"))
    world.sleep(200)
    with pytest.raises(SpendLimit):
        reserve(guard, "b")


def test_a_pod_that_has_ended_gives_its_room_back_and_an_old_list_is_looked_at_again() -> None:
    world = World()
    guard = guard_of(world, max_pods=1)
    reserve(guard, "a")
    guard.settle("a", world.add("a"))
    world.sleep(60)
    with pytest.raises(SpendLimit):
        reserve(guard, "b")
    world.end("pod1")
    world.sleep(TERMS.lag_s + 1)
    reserve(guard, "b")


def test_a_pod_that_was_ended_here_gives_its_room_back_at_once() -> None:
    world = World()
    eyes = Eyes(world)
    guard = SpendGuard(SpendLimits(1), eyes, Bills(Ledger(), world), lambda _: MemoryBook(), world, TERMS)
    reserve(guard, "a")
    guard.settle("a", world.add("a"))
    eyes.ended.add("pod1")
    world.end("pod1")
    world.sleep(1)
    reserve(guard, "b")


def test_only_our_uid_counts_and_dead_pods_take_no_room_but_what_they_cost() -> None:
    world = World()
    world.add("a", uid=OTHER)
    world.add("b", status="EXITED", usd_per_hr=0.0)
    world.add("c", status="ERROR", usd_per_hr=0.6)
    guard = guard_of(world, max_pods=1, max_usd_per_hour=1)
    with pytest.raises(SpendLimit, match=r"\$0.60/h"):
        reserve(guard, "d", 0.5)
    reserve(guard, "d", 0.4)


def test_a_live_pod_counts_at_what_it_was_rented_for_when_the_list_says_less() -> None:
    world = World()
    guard = guard_of(world, max_usd_per_hour=2)
    reserve(guard, "a", 1.5)
    guard.settle("a", world.add("a", 0.0))
    world.sleep(60)
    with pytest.raises(SpendLimit, match=r"cost \$1.50/h"):
        reserve(guard, "b", 1.0)


# The day


def test_the_day_is_the_bill_of_all_pods_but_those_of_others() -> None:
    world, ledger = World(), Ledger()
    foreign = world.add("x", uid=OTHER)
    ledger.bill(foreign, 40)
    ledger.bill("long-gone", 7)
    guard = guard_of(world, ledger, max_usd_per_day=10)
    reserve(guard, "a", 2)
    with pytest.raises(SpendLimit, match=r"cost \$7.00 \(\$7.00 of it by ended pods of unknown owner\)"):
        reserve(guard, "b", 2)
    world.end(foreign)  # still another's
    world.sleep(60)
    with pytest.raises(SpendLimit, match=r"cost \$7.00 "):
        reserve(guard, "b", 2)


def test_a_live_pod_has_cost_at_least_its_price_times_its_age() -> None:
    world, ledger = World(), Ledger()
    pod = world.add("a", 2.0, age_s=3 * HOUR_S)
    guard = guard_of(world, ledger, max_usd_per_day=8)
    with pytest.raises(SpendLimit, match=r"cost \$6.00, the next hour with this pod \$2.50"):
        reserve(guard, "b", 0.5)
    ledger.bill(pod, 6.5)
    world.sleep(600)
    with pytest.raises(SpendLimit, match=r"cost \$6.50, the next hour"):
        reserve(guard, "b", 0.5)


def test_only_the_last_24_hours_count() -> None:
    assert Run(1.0, 0.0, 100 * HOUR_S).usd(100 * HOUR_S) == 24
    assert Run(1.0, 0.0, 10 * HOUR_S).usd(100 * HOUR_S) == 0


def test_a_pod_that_ended_before_it_was_billed_is_remembered() -> None:
    world = World()
    guard = guard_of(world, max_usd_per_day=4)
    reserve(guard, "a", 1)
    guard.settle("a", world.add("a", 1))
    world.sleep(2 * HOUR_S)
    reserve(guard, "b", 0.5)
    guard.settle("b", None)
    world.end("pod1")
    world.sleep(60)
    with pytest.raises(SpendLimit, match=r"cost \$2.00"):
        reserve(guard, "c", 2.5)


def test_a_bill_that_cannot_be_read_stops_nobody_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    world, ledger = World(), Ledger(trouble=ApiUnavailable("RunPod says 503"))
    world.add("a", 2.0, age_s=3 * HOUR_S)
    guard = guard_of(world, ledger, max_usd_per_day=10)
    reserve(guard, "b", 1)
    reserve(guard, "c", 1)
    assert ledger.reads == 1
    assert capsys.readouterr().out.count("spend.bill_unread") == 1
    with pytest.raises(SpendLimit, match=r"cost \$6.00"):  # what can be computed still counts
        reserve(guard, "d", 1)


# The book


def two(world: World, folder: Path, alive: set[str], **limits: Any) -> tuple[SpendGuard, SpendGuard]:
    """Two processes of one checkout."""
    owners = [Owner(name, alive.__contains__) for name in ("h/1", "h/2")]
    one, other = (guard_of(world, None, folder, owner=owner, **limits) for owner in owners)
    return one, other


def test_two_processes_share_the_reservations_of_a_checkout(tmp_path: Path) -> None:
    world, alive = World(), {"h/1", "h/2"}
    one, other = two(world, tmp_path, alive, max_pods=2)
    reserve(one, "a")
    reserve(other, "b")
    for guard in (one, other):
        with pytest.raises(SpendLimit):
            reserve(guard, "c")


def test_a_dead_process_keeps_its_room_while_its_post_may_still_arrive(tmp_path: Path) -> None:
    world, alive = World(), {"h/1", "h/2"}
    one, other = two(world, tmp_path, alive, max_pods=1)
    reserve(one, "a")
    alive.remove("h/1")
    with pytest.raises(SpendLimit):
        reserve(other, "b")
    reserve(other, "a")  # the very same pod: it was looked for by its name
    other.settle("a", None)
    reserve(one, "a")
    world.sleep(TERMS.lost_s)
    reserve(other, "b")


def test_the_book_holds_no_secret_and_is_the_owners_alone(tmp_path: Path) -> None:
    guard = guard_of(World(), None, tmp_path, max_pods=1)
    reserve(guard, "a")
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    assert set(json.loads(file.read_text())) == {"version", "holds", "runs", "foreign"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"holds": [{}], "runs": {}, "foreign": {}}'])
def test_a_broken_book_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{UID}.json").write_text(text)
    guard = guard_of(World(), None, tmp_path, max_pods=1)
    reserve(guard, "a")
    with pytest.raises(SpendLimit):
        reserve(guard, "b")


def test_a_folder_that_cannot_be_written_leaves_this_processs_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spend").write_text("a file where the folder should be")
    guard = guard_of(World(), None, tmp_path / "spend", max_pods=1)
    reserve(guard, "a")
    with pytest.raises(SpendLimit):
        reserve(guard, "b")
    assert capsys.readouterr().out.count("spend.book_unusable") == 1


def test_a_lock_that_somebody_keeps_is_one_line_and_loses_no_pod(tmp_path: Path) -> None:
    world = World()
    keeper, guard = FileBook(tmp_path, UID, world), guard_of(world, None, tmp_path, max_pods=1)
    reserve(guard, "a")
    with keeper.open():
        guard.settle("a", "pod1")  # says nothing
        with pytest.raises(ProviderError, match=r"another process has held .*\.lock for 30 s: nothing was rented"):
            reserve(guard, "b")


def test_a_uid_that_is_no_file_name_is_kept_in_memory(tmp_path: Path) -> None:
    assert isinstance(book_in(str(tmp_path), "../x", World()), MemoryBook)
    assert isinstance(book_in("", UID, World()), MemoryBook)
    assert isinstance(book_in(str(tmp_path), UID, World()), FileBook)


def test_this_process_lives_and_others_can_be_told_dead() -> None:
    assert lives(this_process())
    assert lives("elsewhere/1")
    host = this_process().rpartition("/")[0]
    assert not lives(f"{host}/999999999")


def test_a_hold_is_shown_by_its_id_once_that_is_known() -> None:
    hold = Hold("o", "a", 1.0, 0.0, before=frozenset({"old"}))
    assert not hold.shown_in([Listed("old", "a", 1, 0)])
    assert hold.shown_in([Listed("new", "a", 1, 0)])
    assert not replace(hold, pod_id="x").shown_in([Listed("new", "a", 1, 0)])


# Never past a limit


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_threads_that_rent_and_end_never_exceed_a_limit(tmp_path: Path, seed: int, processes: int) -> None:
    world, limits = World(), {"max_pods": 5, "max_usd_per_hour": 3.0}
    alone = guard_of(world, **limits)
    guards = (
        (alone, alone) if processes == 1 else two(world, tmp_path, {"h/1", "h/2"}, **limits, lock_clock=RealClock())
    )
    under_way: dict[str, float] = {}
    worst = [0, 0.0]

    def look() -> None:
        with world.lock:
            prices = [pod.cost_usd_per_hr for pod in world.pods.values()] + list(under_way.values())
            worst[:] = [max(worst[0], len(prices)), max(worst[1], sum(prices))]

    def rent(number: int) -> None:
        dice = random.Random(f"{seed} {number}")  # noqa: S311
        guard, name, price = guards[number % 2], f"slot-{number}", dice.choice([0.3, 0.7, 1.1])
        try:
            guard.reserve(name=name, uid=UID, usd_per_hr=price)
        except SpendLimit:
            world.sleep(12)  # all together less than an answer may take
            return
        with world.lock:
            under_way[name] = price
        look()
        pod_id = None
        with world.lock:
            del under_way[name]
            if dice.random() < 0.7:
                pod_id = world.add(name, price)
        look()
        guard.settle(name, pod_id)
        world.sleep(dice.random() * 5)
        if pod_id and dice.random() < 0.5:
            world.end(pod_id)

    with ThreadPoolExecutor(12) as workers:
        list(workers.map(rent, range(60)))
    assert worst[0] <= 5
    assert worst[1] <= 3.0 + 1e-9
    assert next(world.ids) >= 3  # it was tried


class Interleaved(RuleBasedStateMachine):
    """Two processes, lists that are up to ten seconds old, answers in any order, a process that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.world = World(lag_s=8.0)
        self.alive = {"h/1", "h/2"}
        limits = {"max_pods": 3, "max_usd_per_hour": 4.0}
        self.guards = list(two(self.world, Path(self.folder.name), self.alive, **limits))
        self.flying: dict[str, tuple[int, float, float]] = {}  # name → guard, price, since
        self.landed: dict[str, tuple[int, str]] = {}
        self.numbers = itertools.count()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(who=st.integers(0, 1), price=st.sampled_from([0.5, 1.0, 2.0]))
    def reserve(self, who: int, price: float) -> None:
        if f"h/{who + 1}" not in self.alive:
            return
        name = f"slot-{next(self.numbers)}"
        with suppress(SpendLimit):
            self.guards[who].reserve(name=name, uid=UID, usd_per_hr=price)
            self.flying[name] = (who, price, self.world.t)

    @precondition(lambda self: self.flying)
    @rule(pick=st.randoms(use_true_random=False), arrives=st.booleans(), answered=st.booleans())
    def outcome(self, pick: random.Random, arrives: bool, answered: bool) -> None:
        name = pick.choice(sorted(self.flying))
        who, price, _ = self.flying.pop(name)
        pod_id = self.world.add(name, price) if arrives else None
        if answered and f"h/{who + 1}" in self.alive:
            self.guards[who].settle(name, pod_id)
        elif pod_id:
            self.landed[name] = (who, pod_id)

    @precondition(lambda self: self.landed)
    @rule(pick=st.randoms(use_true_random=False))
    def answer(self, pick: random.Random) -> None:
        name = pick.choice(sorted(self.landed))
        who, pod_id = self.landed.pop(name)
        if f"h/{who + 1}" in self.alive:
            self.guards[who].settle(name, pod_id)

    @precondition(lambda self: self.world.pods)
    @rule(pick=st.randoms(use_true_random=False))
    def end(self, pick: random.Random) -> None:
        pod_id = pick.choice(sorted(self.world.pods))
        self.world.end(pod_id)

    @rule(seconds=st.floats(0.1, 30))
    def wait(self, seconds: float) -> None:
        self.world.sleep(seconds)
        for name, (who, _, since) in list(self.flying.items()):
            late = self.world.t - since
            if late > 800 or (f"h/{who + 1}" not in self.alive and late > TERMS.lost_s - 5):
                del self.flying[name]  # no POST is that late

    @rule(who=st.integers(0, 1))
    def die(self, who: int) -> None:
        if len(self.alive) == 2:
            self.alive.remove(f"h/{who + 1}")

    @invariant()
    def within(self) -> None:
        prices = [pod.cost_usd_per_hr for pod in self.world.pods.values()]
        prices += [price for _, price, _ in self.flying.values()]
        assert len(prices) <= 3
        assert sum(prices) <= 4.0 + 1e-9


Interleaved.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestInterleaved: Callable[..., Any] = Interleaved.TestCase


# Where the limits come from


def test_the_limits_come_from_the_config_and_unset_means_its_defaults() -> None:
    assert read_settings({}, lambda _: None).limits == SpendLimits(3, 5.0, 50.0)
    values = {"podfleet:maxPods": "0", "podfleet:maxUsdPerHour": "0", "podfleet:maxUsdPerDay": "7.5"}
    settings = read_settings({"PODFLEET_STATE_DIR": "/x/.podfleet"}, values.get)
    assert settings.limits == SpendLimits(0, 0.0, 7.5)
    assert settings.state_dir == "/x/.podfleet"
    assert hash(settings)
