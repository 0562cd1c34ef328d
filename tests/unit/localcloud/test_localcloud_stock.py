"""Where a request goes, what it costs there, what is left: the inventory as a table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud import facts as facts_module
from localcloud.errors import Problem
from localcloud.facts import Facts, InventoryRow
from localcloud.model import CpuWish, GpuWish, Pod, PodRequest
from localcloud.pulls import Pulls
from localcloud.stock import Spot, Stock

FACTS = facts_module.load()
A4000 = "NVIDIA RTX A4000"
L4 = "NVIDIA L4"
CENTERS = [center.id for center in FACTS.data_centers]


def request(**more: object) -> PodRequest:
    fields = {"name": "p", "image": "i", "gpu": GpuWish(A4000), **more}
    return PodRequest(**fields)  # type: ignore[arg-type]


def row(center: str, free: int, cloud: str = "SECURE", **more: object) -> InventoryRow:
    fields = {"data_center": center, "gpu": A4000, "cloud": cloud, "free": free, **more}
    return InventoryRow.model_validate(fields)


def stock_of(*rows: InventoryRow, **changes: object) -> Stock:
    return Stock(FACTS.model_copy(update={"inventory": rows, **changes}))


def take(stock: Stock, wanted: PodRequest) -> Pod:
    spot = stock.find(wanted)
    place = (spot.data_center_id, spot.cuda_version, 0.0, Path("/r"), "key")
    return Pod("id", 1, wanted, spot.price_usd_per_hr, *place, host=stock.take(spot, wanted))


def where(stock: Stock, **more: object) -> tuple[str, str, float]:
    spot = stock.find(request(**more))
    return spot.data_center_id, spot.cuda_version, spot.price_usd_per_hr


def test_price_is_per_gpu_and_by_cloud() -> None:
    stock = Stock(FACTS)
    assert stock.find(request(gpu=GpuWish(A4000, 2))).price_usd_per_hr == 0.5
    assert stock.find(request(cloud="COMMUNITY")).price_usd_per_hr == 0.17


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu": GpuWish(L4), "cloud": "COMMUNITY"},
        {"gpu": GpuWish(A4000, 9)},
        {"gpu": GpuWish(A4000, min_cuda_version="13.1")},
        {"gpu": GpuWish(A4000, allowed_cuda_versions=("12.5",))},
        {"gpu": GpuWish(A4000, min_cuda_version="12.8"), "data_center_ids": ("CA-MTL-3",)},
    ],
)
def test_what_no_host_can_do_is_answered_as_no_capacity(wrong: dict[str, object]) -> None:
    with pytest.raises(Problem) as caught:
        Stock(FACTS).find(request(**wrong))
    assert (caught.value.status, caught.value.detail) == (400, FACTS.texts.no_capacity)


def test_data_centres_are_enforced_and_floors_compare_numbers() -> None:
    stock = Stock(FACTS)
    assert where(stock, data_center_ids=("US-KS-2",))[:2] == ("US-KS-2", "13.0")
    assert where(stock, gpu=GpuWish(A4000, min_cuda_version="12.10"))[0] == "US-KS-2"
    assert where(stock, data_center_ids=("CA-MTL-3", "EU-RO-1"))[0] == "CA-MTL-3"


def test_the_shorthand_is_one_pool_for_all_data_centres_and_clouds() -> None:
    stock = stock_of(stock={A4000: 2})
    take(stock, request(data_center_ids=("US-KS-2",)))
    take(stock, request(cloud="COMMUNITY"))
    assert stock.free(A4000) == 0
    with pytest.raises(Problem):
        stock.find(request())
    assert stock.free(L4) == FACTS.stock_default


def test_rows_are_used_up_one_after_another_and_have_prices_of_their_own() -> None:
    stock = stock_of(row("US-KS-2", 1, usd_per_hr=0.5), row("EU-SE-1", 1, cuda_version="12.4"), row("EU-SE-1", 1))
    found = []
    for _ in range(3):
        found.append(where(stock))
        take(stock, request())
    assert found == [("EU-SE-1", "12.4", 0.25), ("EU-SE-1", "12.8", 0.25), ("US-KS-2", "13.0", 0.5)]
    with pytest.raises(Problem):
        stock.find(request())
    with pytest.raises(Problem):
        stock.find(request(cloud="COMMUNITY"))


def test_several_cuda_versions_in_one_data_centre_serve_several_floors() -> None:
    stock = stock_of(row("EU-SE-1", 1, cuda_version="12.4"), row("EU-SE-1", 1, cuda_version="12.8"))
    assert where(stock, gpu=GpuWish(A4000, min_cuda_version="12.6"))[1] == "12.8"
    assert where(stock, gpu=GpuWish(A4000, allowed_cuda_versions=("12.4",)))[1] == "12.4"
    shared = Stock(FACTS.model_copy(update={"data_centers": _with_more(FACTS, "12.4")}))
    assert where(shared, gpu=GpuWish(A4000, allowed_cuda_versions=("12.4",)))[:2] == ("EU-RO-1", "12.4")
    assert where(shared)[1] == "12.8"


def _with_more(facts: Facts, version: str) -> list[object]:
    return [center.model_copy(update={"more_cuda_versions": (version,)}) for center in facts.data_centers]


def test_gpus_are_taken_whole_or_not_at_all_and_given_back() -> None:
    stock = stock_of(row("EU-SE-1", 3))
    pod = take(stock, request(gpu=GpuWish(A4000, 2)))
    with pytest.raises(Problem):
        stock.find(request(gpu=GpuWish(A4000, 2)))
    assert stock.free(A4000) == 1
    stock.give_back(pod)
    assert stock.free(A4000) == 3


def test_pods_share_a_host_until_it_is_full() -> None:
    stock = stock_of(row("EU-SE-1", 9), gpus_per_host=4)
    hosts = [take(stock, request(gpu=GpuWish(A4000, count))).host for count in (2, 2, 1, 4)]
    assert hosts[0] == hosts[1] != hosts[2] != hosts[3] != hosts[0]


def test_a_stopped_pod_comes_back_to_its_own_host_or_not_at_all() -> None:
    stock = stock_of(row("EU-SE-1", 3), gpus_per_host=1)
    first = take(stock, request())
    stock.give_back(first)
    other = take(stock, request())
    assert (other.host, stock.take_again(first)) == (first.host, False)
    stock.give_back(other)
    assert stock.take_again(first)
    assert stock.free(A4000) == 2


def test_an_offer_counts_what_is_free_by_data_centre_and_cuda() -> None:
    stock = stock_of(row("EU-SE-1", 2), row("EU-SE-1", 1, cuda_version="12.4"), row("US-KS-2", 5), row("EU-RO-1", 0))
    offer = stock.offer(GpuWish(A4000), "SECURE", CENTERS)
    assert (offer.free, dict(offer.by_data_center)) == (8, {"EU-SE-1": 3, "US-KS-2": 5, "EU-RO-1": 0})
    assert offer.by_cuda == {"12.8": 2, "12.4": 1, "13.0": 5}
    assert stock.offer(GpuWish(A4000, 2, min_cuda_version="12.8"), "SECURE", CENTERS).free == 7
    assert stock.offer(GpuWish(A4000), "SECURE", ["EU-RO-1"]).free == 0
    assert not stock.offer(GpuWish(A4000), "COMMUNITY", CENTERS).by_data_center


@pytest.mark.parametrize(("free", "word"), [(-1, "NONE"), (0, "NONE"), (1, "LOW"), (3, "MEDIUM"), (9, "HIGH")])
def test_a_count_has_a_word(free: int, word: str) -> None:
    assert FACTS.stock_word(free) == word


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gpu": "NVIDIA"}, "unknown gpu id 'NVIDIA'"),
        ({"data_center": "MOON-1"}, "unknown data center 'MOON-1'"),
        ({"gpu": L4, "cloud": "COMMUNITY"}, "has no price in COMMUNITY"),
    ],
)
def test_a_row_of_what_is_not_on_offer_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(Problem) as caught:
        stock_of(row("EU-SE-1", 1).model_copy(update=wrong))
    assert words in caught.value.errors[0]


@given(st.lists(st.tuples(st.sampled_from(CENTERS), st.integers(1, 3), st.booleans()), max_size=30))
def test_whatever_pods_take_and_give_back_the_stock_is_whole_in_the_end(steps: list[tuple[str, int, bool]]) -> None:
    stock = stock_of(*(row(center, 4) for center in CENTERS))
    live: list[Pod] = []
    for center, count, end_one in steps:
        if end_one and live:
            stock.give_back(live.pop(0))
        try:
            live.append(take(stock, request(gpu=GpuWish(A4000, count), data_center_ids=(center,))))
        except Problem:
            assert stock.offer(GpuWish(A4000, count), "SECURE", [center]).free == 0
        assert 0 <= stock.free(A4000) <= 16
    again = Stock(FACTS)
    again.from_json(stock.to_json())
    for pod in live:
        stock.give_back(pod)
        again.give_back(pod)
    assert stock.free(A4000) == again.free(A4000) == 16


# -- images -----------------------------------------------------------------------------------------------------------
def test_an_image_comes_once_to_a_host() -> None:
    facts = FACTS.model_copy(update={"images": {"podfleet/*": 8.0}, "pull_gb_per_s": 0.1})
    stock, pulls = stock_of(row("EU-SE-1", 9), gpus_per_host=3), Pulls()
    pods = [take(stock, request(image="podfleet/node:1")) for _ in range(4)]
    waits = [pulls.pull_s(pod, facts, now_s) for pod, now_s in zip(pods, (100.0, 150.0, 200.0, 200.0), strict=True)]
    assert waits == [80.0, 30.0, 0.0, 80.0]
    other = take(stock, request(image="busybox"))
    assert pulls.pull_s(other, facts, 100.0) == 0.0
    again = Pulls()
    again.from_json(pulls.to_json())
    assert again.pull_s(pods[0], facts, 150.0) == 30.0


def test_a_cpu_pod_takes_no_gpu() -> None:
    stock = Stock(FACTS)
    wanted = request(gpu=None, cpu=CpuWish("cpu3c", 4))
    assert stock.find(wanted) == Spot("EU-RO-1", "12.8", 0.12)
    pod = take(stock, wanted)
    stock.give_back(pod)
    assert stock.take_again(pod)
