"""Which candidate comes first, which offers are left out, and which filter is said to be binding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from podfleet.binding import Market, active, binding, explain, without
from podfleet.config import parse
from podfleet.gpus import GPUS, SLOWEST, Basis, speed_of, vram_need_gb
from podfleet.placement import (
    CLOUDS,
    SOLD_OUT,
    Avoid,
    Candidate,
    Offer,
    Place,
    Rejected,
    Rules,
    Wish,
    clouds_of,
    rank,
    rules_of,
    summary,
    version_of,
)

A4000, A5000, L4, H100 = "NVIDIA RTX A4000", "NVIDIA RTX A5000", "NVIDIA L4", "NVIDIA H100 80GB HBM3"
L40, L40S = "NVIDIA L40", "NVIDIA L40S"


def offer(gpu: str, price: float, **more: Any) -> Offer:
    known = {"cloud": "SECURE", "stock": "HIGH", "vram_gb": 24.0, **more}
    return Offer(gpu_id=gpu, price_usd_per_hr=price, **known)


def ids(wish: Wish, *offers: Offer) -> list[str]:
    return [candidate.gpu_id for candidate in rank(wish, offers).candidates]


def reasons(wish: Wish, *offers: Offer) -> dict[str, str]:
    return {each.what: each.filter for each in rank(wish, offers).rejected}


def market(*offers: Offer) -> Market:
    return Market(offers, offers)


def test_the_cheapest_hour_of_audio_is_first_not_the_cheapest_hour() -> None:
    assert ids(Wish(), offer(A4000, 0.25), offer(A5000, 0.27), offer(L4, 0.49)) == [A5000, A4000, L4]


def test_a_measured_speed_goes_before_the_table() -> None:
    measured = Rules(speeds=((A4000, 900.0),))
    first = rank(Wish(rules=measured), [offer(A4000, 0.25), offer(A5000, 0.27)]).candidates[0]
    assert (first.gpu_id, first.basis) == (A4000, Basis.MEASURED)
    assert first.usd_per_audio_hr == pytest.approx(0.25 / 900)


def test_an_engine_without_a_gpu_asks_for_the_cheapest_hour() -> None:
    assert ids(Wish(rules=Rules(engine="pocketsphinx")), offer(A5000, 0.27), offer(A4000, 0.25)) == [A4000, A5000]


def test_listed_order_is_that_of_the_stack_then_clouds_then_data_centres() -> None:
    wish = Wish((A5000, A4000), CLOUDS, ("EU-2", "EU-1"), rules=Rules(order="listed"))
    offers = [offer(gpu, price, cloud=cloud) for gpu, price in ((A4000, 0.1), (A5000, 9)) for cloud in CLOUDS]
    found = [(each.gpu_id, each.cloud, each.data_center_id) for each in rank(wish, offers).candidates]
    assert found == [(g, c, d) for g in (A5000, A4000) for c in CLOUDS for d in ("EU-2", "EU-1")]


def test_what_is_scarce_comes_after_the_same_price_elsewhere() -> None:
    wish = Wish(rules=Rules(engine="scripted"))
    assert ids(wish, offer(A4000, 0.25, stock="LOW"), offer(A5000, 0.25), offer(L4, 0.24, stock="LOW")) == [
        L4,
        A5000,
        A4000,
    ]


def test_what_is_sold_out_is_last_where_it_was_asked_for_by_name_and_out_elsewhere() -> None:
    offers = [offer(A5000, 0.27, stock="NONE"), offer(A4000, 0.25)]
    assert ids(Wish((A5000, A4000)), *offers) == [A4000, A5000]
    assert ids(Wish(), *offers) == [A4000]
    assert reasons(Wish(), *offers) == {f"{A5000} SECURE": "stock"}


def test_lists_go_by_exact_id_never_by_a_part_of_it_or_by_the_name_that_is_shown() -> None:
    offers = [offer(L4, 0.4), offer(L40, 0.8), offer(L40S, 0.9)]
    assert ids(Wish(rules=Rules(blocked=(L4,))), *offers) == [L40, L40S]
    assert ids(Wish((L40,)), *offers) == [L40]
    assert ids(Wish(rules=Rules(blocked=("L4", "NVIDIA", ""))), *offers) == [L40, L40S, L4]


def test_a_listed_type_that_nobody_offers_is_told() -> None:
    found = rank(Wish(("RTX 4090", L4)), [offer(L4, 0.4)]).rejected
    assert found == (Rejected("RTX 4090", "gpuTypes", "no offer of it in SECURE"),)


def test_without_data_centres_one_request_asks_all_of_them() -> None:
    everywhere = offer(L4, 0.4, places=(Place("EU-1", "HIGH"), Place("EU-2", "NONE")))
    (found,) = rank(Wish(), [everywhere]).candidates
    assert found.data_center_id is None


def test_with_data_centres_each_is_asked_for_and_what_is_elsewhere_is_told() -> None:
    here = offer(L4, 0.4, places=(Place("EU-1", "LOW"), Place("EU-2", "HIGH"), Place("US-1", "HIGH")))
    there = offer(A5000, 0.2, places=(Place("US-1", "HIGH"),))
    found = rank(Wish(data_center_ids=("EU-1", "EU-2")), [here, there])
    assert [each.data_center_id for each in found.candidates] == ["EU-2", "EU-1"]
    assert found.rejected == (Rejected(f"{A5000} SECURE", "dataCenterIds", "not in EU-1, EU-2"),)


def test_where_a_pod_has_failed_the_other_data_centres_of_the_offer_are_asked_by_name() -> None:
    spread = offer(L4, 0.4, places=(Place("EU-1", "HIGH"), Place("EU-2", "HIGH")))
    found = rank(Wish(avoid=(Avoid(L4, "SECURE", "EU-1", "12.4"),)), [spread])
    assert [each.data_center_id for each in found.candidates] == ["EU-2"]
    assert found.rejected == (Rejected(f"{L4} SECURE EU-1", "avoid", "failed at boot (CUDA 12.4)"),)


@pytest.mark.parametrize("place", ["", "EU-1"])
def test_where_no_other_data_centre_is_known_the_whole_offer_is_left_out(place: str) -> None:
    found = rank(Wish(avoid=(Avoid(L4, "SECURE", place),)), [offer(L4, 0.4), offer(L4, 0.5, cloud="COMMUNITY")])
    assert found.candidates == ()
    assert [each.filter for each in found.rejected] == ["cloud", "avoid"]


def test_memory_that_the_catalogue_does_not_tell_passes_for_a_listed_type_alone() -> None:
    need = Rules(min_vram_gb=16)
    assert ids(Wish(rules=need), offer(L4, 0.4, vram_gb=0)) == []
    assert ids(Wish((L4,), rules=need), offer(L4, 0.4, vram_gb=0)) == [L4]


def test_the_cuda_floor_is_a_number_not_a_text() -> None:
    assert version_of("12.10") > version_of("12.8")
    old, new = offer(L4, 0.1, cuda_versions=("12.4", "9.2")), offer(A5000, 0.2, cuda_versions=("12.4", "12.10"))
    assert ids(Wish(min_cuda_version="12.8"), old, new, offer(A4000, 0.3)) == [A5000, A4000]


@pytest.mark.parametrize(
    ("engine", "model", "need_gb"),
    [
        ("parakeet", "", 12),
        ("whisper", "large-v3", 10),
        ("whisper", "Systran/faster-whisper-large-v3", 10),
        ("whisper", "deepdml/faster-whisper-large-v3-turbo-ct2", 6),
        ("whisper", "medium.en", 5),
        ("whisper", "small", 2),
        ("whisper", "", 10),
        ("whisper", "/models/our-own", 10),
        ("pocketsphinx", "", 0),
        ("scripted", "", 0),
    ],
)
def test_a_model_says_how_much_memory_it_needs(engine: str, model: str, need_gb: float) -> None:
    assert vram_need_gb(engine, model) == need_gb


def test_every_gpu_of_the_price_list_has_a_speed_and_says_where_it_is_from() -> None:
    assert len(GPUS) == 22
    assert {gpu for gpu, row in GPUS.items() if row.basis is Basis.PLANNED} == {
        L4,
        A5000,
        "NVIDIA A40",
        "NVIDIA GeForce RTX 4090",
    }
    assert speed_of("NVIDIA X1", engine="parakeet").basis is Basis.ASSUMED
    assert speed_of("NVIDIA X1", engine="parakeet").audio_s_per_s == SLOWEST
    assert (
        speed_of(L4, engine="whisper", model="large-v3").audio_s_per_s < speed_of(L4, engine="parakeet").audio_s_per_s
    )


def test_the_config_makes_the_rules() -> None:
    values = {"uid": "s-0a1b2c3d", "image": "x", "queueUrl": "http://q", "bootstrap": "none", "engine": "parakeet"}
    rules = rules_of(parse({**values, "gpuSpeeds": {L4: 60}, "maxUsdPerPodHour": 0.5, "cloud": "ALL"}, stack="s"))
    assert (rules.order, rules.speeds, rules.min_vram_gb, rules.max_usd_per_hr) == ("price", ((L4, 60.0),), 12, 0.5)
    assert rules.min_vram_text == "12 (parakeet needs it)"
    assert rules_of(parse({**values, "minVramGb": 20}, stack="s")).min_vram_text == "20"
    assert (clouds_of("ALL"), clouds_of("COMMUNITY")) == (CLOUDS, ("COMMUNITY",))


# What is said where nothing fits


def test_the_binding_filter_is_named_with_its_value_and_the_offers_behind_it() -> None:
    old = [offer(gpu, 0.5) for gpu in (L4, A5000)]
    cheap = [offer(gpu, 0.1, stock=SOLD_OUT) for gpu in (L4, A5000)]
    wish = Wish(min_cuda_version="12.8", rules=Rules(max_usd_per_hr=0.6))
    assert explain(wish, Market(tuple(cheap), tuple(old))) == "2 offers match without `minCudaVersion: 12.8`"
    dear = [offer(gpu, 0.5) for gpu in (L4, A5000, A4000)]
    wish = Wish(rules=Rules(max_usd_per_hr=0.2), gpu_types=(L4, A5000))
    assert explain(wish, market(*dear)) == "2 offers match without `maxUsdPerPodHour: 0.2`"


def test_several_binding_filters_are_told_with_the_most_rewarding_first() -> None:
    offers = [offer(L4, 0.4), offer(A5000, 0.2, cloud="COMMUNITY"), offer(A4000, 0.2, cloud="COMMUNITY")]
    wish = Wish(rules=Rules(max_usd_per_hr=0.3))
    assert explain(wish, market(*offers)) == (
        "2 offers match without `cloud: SECURE`; 1 matches without `maxUsdPerPodHour: 0.3`"
    )


def test_where_no_filter_alone_is_binding_all_are_named() -> None:
    wish = Wish((A4000,), rules=Rules(max_usd_per_hr=0.3))
    assert explain(wish, market(offer(L4, 0.4))) == (
        f"no filter alone is binding; without any of `gpuTypes: {A4000}`, `cloud: SECURE`, `maxUsdPerPodHour: 0.3` "
        "it is 1 offers"
    )
    assert explain(wish, market(offer(L4, 0.4, stock=SOLD_OUT))) == ""


def test_offers_that_are_candidates_already_do_not_count() -> None:
    spread = offer(L4, 0.4, places=(Place("EU-1", "HIGH"), Place("EU-2", "HIGH")))
    wish = Wish((L4,), data_center_ids=("EU-1",))
    (found,) = binding(wish, market(spread))
    assert (found.filter, found.setting, found.offers) == ("dataCenterIds", "dataCenterIds: EU-1", 1)


def test_a_summary_is_short() -> None:
    many = [Rejected(f"GPU {n}", "gpuTypes", "not listed") for n in range(40)]
    few = [Rejected("X SECURE", "minVramGb", "8 GB, 12 are needed")]
    assert summary([*many, *few], 12) == (
        "X SECURE: 8 GB, 12 are needed (minVramGb)",
        "GPU 0: not listed (gpuTypes), and 39 more by gpuTypes",
    )
    assert len(summary([Rejected("g", str(n), "r") for n in range(40)], 12)) == 12


# Properties

gpus = st.sampled_from([A4000, A5000, L4, L40, L40S, H100, "NVIDIA X1"])
centres = st.sampled_from(["EU-1", "EU-2", "US-1"])
stocks = st.sampled_from(["NONE", "LOW", "MEDIUM", "HIGH", "UNKNOWN"])
prices = st.sampled_from([0.16, 0.2, 0.25, 0.5, 0.99, 3.29])
versions = st.sampled_from(["12.4", "12.8", "12.10", "13.0"])
avoids = st.builds(Avoid, gpus, st.sampled_from(CLOUDS), centres | st.just(""))


def uniques(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=most, unique=True).map(tuple)


places = st.lists(st.builds(Place, centres, stocks), max_size=3, unique_by=lambda place: place.id).map(tuple)
offer_lists = st.lists(
    st.builds(
        Offer, gpus, st.sampled_from(CLOUDS), prices, stocks, st.sampled_from([0.0, 16, 24]), places, uniques(versions)
    ),
    max_size=10,
    unique_by=lambda each: (each.gpu_id, each.cloud),
)
rule_sets = st.builds(
    Rules,
    st.just("price"),
    st.dictionaries(gpus, st.sampled_from([30.0, 500.0]), max_size=2).map(lambda each: tuple(sorted(each.items()))),
    uniques(gpus),
    st.sampled_from([0.0, 12.0, 20.0]),
    st.sampled_from([0.0, 0.2, 0.6]),
    st.sampled_from(["", "parakeet", "whisper", "pocketsphinx"]),
)
wishes = st.builds(
    Wish,
    uniques(gpus),
    st.sampled_from([CLOUDS, ("SECURE",), ("COMMUNITY",)]),
    uniques(centres, 2),
    st.sampled_from(["", "12.8", "13.0"]),
    rule_sets,
    uniques(avoids, 2),
)


@given(wishes, offer_lists)
def test_the_order_is_by_price_of_an_hour_of_audio_and_each_candidate_comes_once(
    wish: Wish, offers: list[Offer]
) -> None:
    found = rank(wish, offers).candidates
    assert len({each.key for each in found}) == len(found)
    in_stock = [each for each in found if each.stock != SOLD_OUT]
    assert list(found[: len(in_stock)]) == in_stock
    for part in (in_stock, list(found[len(in_stock) :])):
        cost = [round(each.usd_per_audio_hr, 9) for each in part]
        assert cost == sorted(cost)
        for before, after in pairwise(part):
            same = round(before.usd_per_audio_hr, 9) == round(after.usd_per_audio_hr, 9)
            assert not (same and before.stock == "LOW" and after.stock != "LOW")


def _fits(wish: Wish, offers: dict[tuple[str, str], Offer], each: Candidate) -> bool:
    """By the words of docs/config.md, told a second time."""
    rules, found = wish.rules, offers[each.gpu_id, each.cloud]
    cuda = [version_of(text) for text in found.cuda_versions]
    named = each.gpu_id in wish.gpu_types
    return (
        (named or not wish.gpu_types)
        and each.gpu_id not in rules.blocked
        and each.cloud in wish.clouds
        and (each.data_center_id in wish.data_center_ids or not wish.data_center_ids)
        and (not wish.min_cuda_version or not cuda or max(cuda) >= version_of(wish.min_cuda_version))
        and (found.vram_gb >= rules.min_vram_gb or (not found.vram_gb and named))
        and (not rules.max_usd_per_hr or each.price_usd_per_hr <= rules.max_usd_per_hr)
        and (each.stock != SOLD_OUT or named)
        and not any(
            (bad.gpu, bad.cloud) == (each.gpu_id, each.cloud) and bad.data_center_id in ("", each.data_center_id or "")
            for bad in wish.avoid
        )
    )


@given(wishes, offer_lists)
def test_no_filter_lets_through_what_it_stops(wish: Wish, offers: list[Offer]) -> None:
    by_key = {(each.gpu_id, each.cloud): each for each in offers}
    assert all(_fits(wish, by_key, each) for each in rank(wish, offers).candidates)


@given(wishes, offer_lists)
def test_every_offer_is_a_candidate_or_has_a_reason(wish: Wish, offers: list[Offer]) -> None:
    found = rank(wish, offers)
    told = {" ".join(key[:2]) for key in (each.key for each in found.candidates)}
    for each in offers:
        name = f"{each.gpu_id} {each.cloud}"
        assert name in told or any(no.what.startswith(name) for no in found.rejected)


@given(wishes, offer_lists, st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_ranking_in_whichever_order_it_comes(
    wish: Wish, offers: list[Offer], random: Any
) -> None:
    first = rank(wish, offers)
    random.shuffle(offers)
    assert rank(wish, offers) == first


def _stocked(wish: Wish, offers: list[Offer]) -> set[tuple[str, str]]:
    return {each.key[:2] for each in rank(wish, offers).candidates if each.stock != SOLD_OUT}


@given(wishes, offer_lists)
def test_a_binding_filter_is_truly_binding(wish: Wish, offers: list[Offer]) -> None:
    """Without a filter that is named there are so many offers, and without one that is not named there is none."""
    assume(not _stocked(wish, offers))
    named = {each.filter: each.offers for each in binding(wish, market(*offers))}
    assert named == {key: count for key in active(wish) if (count := len(_stocked(without(wish, key), offers)))}


@given(wishes, offer_lists)
def test_a_relaxed_wish_never_has_fewer_offers(wish: Wish, offers: list[Offer]) -> None:
    for key in active(wish):
        by_name = key == "gpuTypes" or (
            key == "dataCenterIds" and wish.avoid
        )  # what is named is asked for all the same
        if not by_name:
            assert _stocked(wish, offers) <= _stocked(without(wish, key), offers)


@given(wishes, offer_lists)
def test_the_listed_order_has_the_same_candidates(wish: Wish, offers: list[Offer]) -> None:
    assume(wish.gpu_types)
    listed = replace(wish, rules=replace(wish.rules, order="listed"))
    one, other = rank(wish, offers).candidates, rank(listed, offers).candidates
    assert {each.key for each in one} == {each.key for each in other}
    stocked = [wish.gpu_types.index(each.gpu_id) for each in other if each.stock != SOLD_OUT]
    assert stocked == sorted(stocked)
