"""The ledger: every span times its price, and a balance that is what was paid in less what was spent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.ledger import Bill, Ledger


def bill(pod_id: str = "a", price: float = 0.36, created_at_s: float = 1000.0) -> Bill:
    return Bill(pod_id, "pod", "NVIDIA L4", price, created_at_s)


def test_an_ended_pod_costs_price_times_time_from_create_to_end() -> None:
    one = bill(price=0.27)
    one.end(1007.5)
    assert one.usd(9999.0) == 0.27 * (1007.5 - 1000.0) / 3600
    assert one.line(9999.0)["ended_at"] == 1007.5


def test_a_running_pod_costs_up_to_now() -> None:
    assert bill().usd(1100.0) == pytest.approx(0.01)


def test_a_stopped_pod_costs_nothing_until_it_is_resumed() -> None:
    one = bill()
    one.pause(1100.0)
    one.pause(1150.0)
    assert not one.running()
    one.resume(1200.0)
    one.resume(1250.0)
    one.end(1300.0)
    assert one.spans == [(1000.0, 1100.0), (1200.0, 1300.0)]
    assert one.usd(5000.0) == pytest.approx(0.02)


def test_the_end_of_a_stopped_pod_charges_nothing_more() -> None:
    one = bill()
    one.pause(1100.0)
    one.end(1500.0)
    assert one.usd(2000.0) == pytest.approx(0.01)
    assert one.ended_at_s == 1500.0


def test_a_balance_set_anew_ignores_what_was_spent_before() -> None:
    ledger = Ledger(5.0)
    ledger.open(bill())
    assert ledger.balance_usd(1100.0) == pytest.approx(4.99)
    ledger.set_balance(1.0, 1100.0)
    assert ledger.balance_usd(1100.0) == pytest.approx(1.0)
    assert ledger.balance_usd(1200.0) == pytest.approx(0.99)
    assert ledger.usd_per_hr() == 0.36


def test_a_pod_is_unowned_until_somebody_declares_it_and_from_when_nobody_does() -> None:
    ledger = Ledger(5.0)
    ledger.open(bill("a"))
    ledger.declare_owned(["a"], "", 1010.0)
    one = ledger.bills["a"]
    assert (one.owner_lost_at_s(), one.unowned_s(1100.0)) == (None, 10.0)
    ledger.declare_owned(["a"], "", 1050.0)
    ledger.declare_owned([], "pod", 1100.0)
    ledger.declare_owned([], "pod", 1120.0)
    assert (one.owner_lost_at_s(), one.unowned_s(1130.0)) == (1100.0, 40.0)
    ledger.declare_owned(["a"], "", 1130.0)
    assert (one.owner_lost_at_s(), one.unowned_s(2000.0)) == (None, 40.0)


def test_an_ended_pod_keeps_what_it_was_at_its_end() -> None:
    ledger = Ledger(5.0)
    for name in ("lost", "owned"):
        ledger.open(bill(name))
    ledger.declare_owned(["owned"], "", 1000.0)
    for one in ledger.bills.values():
        one.end(1030.0)
    ledger.declare_owned(["lost"], "", 1040.0)
    lines = {line["id"]: (line["owner_lost_at"], line["unowned_s"]) for line in ledger.lines(9999.0)}
    assert lines == {"lost": (1000.0, 30.0), "owned": (None, 0.0)}


def test_a_declaration_speaks_of_its_prefix_alone() -> None:
    ledger = Ledger(5.0)
    ledger.open(Bill("a", "mine-1", "gpu", 1.0, 1000.0))
    ledger.open(Bill("b", "other-1", "gpu", 1.0, 1000.0))
    ledger.declare_owned(["a", "b"], "", 1000.0)
    ledger.declare_owned([], "mine-", 1010.0)
    assert [line["owner_lost_at"] for line in ledger.lines(1020.0)] == [1010.0, None]


def test_a_stopped_pod_counts_as_unowned_only_while_it_is_charged() -> None:
    one = bill()
    one.pause(1010.0)
    one.resume(1100.0)
    assert one.unowned_s(1105.0) == 15.0


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1e6), st.floats(0, 1e5)), max_size=8))
def test_the_total_is_the_sum_of_the_lines(pods: list[tuple[float, float, float]]) -> None:
    ledger = Ledger(100.0)
    for number, (price, created_at_s, length_s) in enumerate(pods):
        one = Bill(str(number), "pod", "gpu", price, created_at_s)
        ledger.open(one)
        one.end(created_at_s + length_s)
    now_s = 2e6
    assert ledger.total_usd(now_s) == sum(line["usd"] for line in ledger.lines(now_s))
    assert ledger.usd_per_hr() == 0
