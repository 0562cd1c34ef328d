"""The account's money: how it is read, what is said of it; and what becomes of a wish for spot pods."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runpod_fakes import FakeRunpod, client_of, lost, problem

from podfleet.errors import NoBalance
from podfleet.providers.runpod.balance import balance_line
from podfleet.providers.runpod.capacity import capacity_note
from podfleet.providers.runpod.client_account import BALANCE_QUERY
from podfleet.providers.runpod.wire import GpuOffer, PodRequest, WireCatalog
from podfleet.providers.runpod.wire_account import Balance

REQUEST = PodRequest("n", "img", "NVIDIA L4", "SECURE", None, "", 20, (), {})


def line(usd: float, spend: float, now: float, then: float, low: float = 6) -> str:
    found = balance_line(Balance(usd, spend), now_usd_per_hr=now, then_usd_per_hr=then, low_hours=low)
    assert found is not None
    assert found.low is ("lowBalanceHours" in found.text or "rents nothing" in found.text)
    return found.text


# Reading


def test_the_balance_comes_by_graphql_with_the_key_in_the_header_alone() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": {"myself": {"clientBalance": 3.1, "currentSpendPerHr": 0.8}}})

    assert client_of(answer).balance() == Balance(3.1, 0.8)
    (request,) = seen
    assert str(request.url) == "http://127.0.0.1:9/graphql"
    assert request.headers["Authorization"] == "Bearer rpa_test"
    assert BALANCE_QUERY in request.content.decode()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(410, text="gone"),
        lambda _: problem(404, "resource not found"),
        lambda _: problem(401, "missing bearer token"),
        lambda _: httpx.Response(502, text="<html>"),
        lambda _: httpx.Response(200, text="<html>"),
        lambda _: httpx.Response(200, json={"errors": [{"message": "no"}], "data": {"myself": None}}),
        lambda _: httpx.Response(200, json={"data": None}),
        lost,
    ],
)
def test_no_trouble_with_the_balance_is_anybodys(answer: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert client_of(answer).balance() is None  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")


def test_without_a_key_there_is_no_balance() -> None:
    assert client_of(lambda _: problem(401, "no"), key="").balance() is None


def test_bills_are_asked_for_by_the_hour_and_read_by_pod() -> None:
    record = {"podId": "a", "startTime": "2027-01-15T08:00:00Z", "endTime": "2027-01-15T09:00:00Z", "totalAmount": 0.5}
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"records": [record], "metadata": {}})

    (bill,) = client_of(answer).pod_billing(start_s=1_800_000_000, end_s=1_800_003_600)
    assert (bill.pod_id, bill.usd, bill.end_s - bill.start_s) == ("a", 0.5, 3600)
    assert dict(seen[0].url.params) == {
        "startTime": "2027-01-15T08:00:00Z",
        "endTime": "2027-01-15T09:00:00Z",
        "bucketSize": "hour",
    }


def test_a_volumes_data_centre_is_an_id_however_it_is_written() -> None:
    rows = [
        {"id": "a", "name": "v", "size": 10, "dataCenter": "EU-RO-1", "type": "STANDARD"},
        {"id": "b", "name": "v", "size": 10, "dataCenterId": "EU-RO-1"},
        {"id": "c", "name": "v", "size": 10, "dataCenter": {"id": "EU-RO-1", "name": "x"}},
        {"id": "d", "name": "v", "size": 10, "dataCenter": None},
    ]
    found = client_of(lambda _: httpx.Response(200, json={"networkVolumes": rows})).list_volumes()
    assert [volume.data_center_id for volume in found] == ["EU-RO-1"] * 3 + [""]


# Telling


def test_the_line_says_how_long_the_money_lasts() -> None:
    assert line(3.1, 0.8, 0.8, 0.8, low=3) == "balance $3.10, lasts 3.9 h at $0.80/h"
    assert line(300, 1, 1, 1) == "balance $300.00, lasts 12 days at $1.00/h"
    assert line(3.1, 0, 0, 0) == "balance $3.10"
    assert line(0, 0, 0, 0) == "balance $0.00: RunPod rents nothing"
    assert line(0, 0, 0, 0, low=0) == "balance $0.00"


def test_little_money_is_a_warning_that_names_the_key_and_what_happens_at_zero() -> None:
    assert line(3.1, 0.8, 0.8, 0.8) == (
        "balance $3.10, lasts 3.9 h at $0.80/h; podfleet:lowBalanceHours is 6; "
        "at $0 RunPod ends all pods: top up, or ask for fewer"
    )
    assert "lowBalanceHours" not in line(0.1, 0.8, 0.8, 0.8, low=0)


def test_a_plan_counts_what_will_run_and_what_others_run_in_the_account() -> None:
    assert line(10, 0.5, 0.5, 2.0, low=5) == "balance $10.00, lasts 5.0 h at $2.00/h"
    assert line(10, 1.5, 0.5, 1.0, low=5) == "balance $10.00, lasts 5.0 h at $2.00/h ($1.00/h of it by others)"
    assert balance_line(None, now_usd_per_hr=1, then_usd_per_hr=1, low_hours=6) is None


MONEY = st.floats(0, 1000)


@given(MONEY, MONEY, MONEY, MONEY, st.floats(0, 100))
def test_any_numbers_make_one_line(usd: float, spend: float, now: float, then: float, low: float) -> None:
    found = balance_line(Balance(usd, spend), now_usd_per_hr=now, then_usd_per_hr=then, low_hours=low)
    assert found is not None
    assert "\n" not in found.text
    assert found.low or found.hours is None or found.hours >= low


def test_no_balance_is_one_sentence() -> None:
    with pytest.raises(NoBalance) as caught:
        client_of(lambda _: problem(402, "Your account balance is too low to rent a pod")).create_pod(REQUEST)
    text = str(caught.value)
    assert text.startswith("RunPod says 402: Your account balance is too low to rent a pod")
    assert text.endswith("nothing was rented; top up the account, then run it again")
    assert "\n" not in text


# Spot


def test_nobody_who_did_not_ask_hears_of_spot() -> None:
    assert capacity_note("on-demand", [GpuOffer("g", "g", 24, "SECURE", 1.0, "HIGH", spot_usd_per_hr=0.5)]) == ""


def test_spot_degrades_to_on_demand_in_one_line() -> None:
    offers = [GpuOffer("g", "g", 24, "SECURE", 1.0, "HIGH")]
    assert capacity_note("spot-if-offered", offers) == (
        "podfleet:capacity: spot-if-offered: RunPod offers no spot pods: on-demand pods are taken, at the prices above"
    )


def test_an_offer_that_names_a_spot_price_is_seen() -> None:
    row = {"id": "NVIDIA L4", "price": {"secure": 0.49, "spot": 0.2}, "availability": "HIGH"}
    offers = WireCatalog.model_validate({"gpus": [row, {"id": "g", "price": {"secure": 1.0}}]}).offers("SECURE")
    assert [offer.spot_usd_per_hr for offer in offers] == [0.2, None]
    assert "a spot price for NVIDIA L4 SECURE, but no way to ask" in capacity_note("spot-if-offered", offers)


# What a pod is rented with


def test_a_pod_asks_for_login_and_volume_only_where_there_are_any() -> None:
    assert not {"registry", "mounts"} & REQUEST.body().keys()
    fake = FakeRunpod()
    asked = PodRequest("n", "img", "g", "SECURE", "EU-RO-1", "", 20, (), {}, "reg1", "vol1", "/models")
    client_of(fake).create_pod(asked)
    (body,) = fake.posts()
    assert body["registry"] == "reg1"
    assert body["mounts"] == {"network": [{"volumeId": "vol1", "path": "/models"}]}
