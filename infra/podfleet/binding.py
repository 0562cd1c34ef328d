"""Which filter keeps the offers out: relax one at a time and count. Pure.

Called by the provider when no pod could be rented, and for the price in a plan when no offer fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from podfleet.placement import CLOUDS, FAILED_AT_BOOT, SOLD_OUT, Offer, Ranking, Wish, rank, shown

Spot = tuple[str, str, str]  # GPU, cloud, data centre


@dataclass(frozen=True, slots=True)
class Market:
    """The catalogue of both clouds, asked with the CUDA floor and without it: it knows which place has which driver."""

    offers: tuple[Offer, ...] = ()
    any_cuda: tuple[Offer, ...] = ()


@dataclass(frozen=True, slots=True)
class Binding:
    """A filter that alone keeps so many further offers (GPU type and cloud) out."""

    filter: str
    setting: str
    offers: int


def explain(wish: Wish, market: Market) -> str:
    """Which filter is binding, in one sentence; empty where nothing else is in stock at all."""
    found = binding(wish, market)
    if found:
        first, *others = found
        offers = "offer matches" if first.offers == 1 else "offers match"
        told = [
            f"{each.offers} {'matches' if each.offers == 1 else 'match'} without `{each.setting}`" for each in others
        ]
        return "; ".join([f"{first.offers} {offers} without `{first.setting}`", *told])
    all_of_it = rank(Wish(clouds=CLOUDS), market.any_cuda)
    more = {spot[:2] for spot in _in_stock(all_of_it, market.any_cuda)}
    keys = ", ".join(f"`{setting(wish, key)}`" for key in active(wish))
    return f"no filter alone is binding; without any of {keys} it is {len(more)} offers" if more and keys else ""


def binding(wish: Wish, market: Market) -> tuple[Binding, ...]:
    """The filters that, relaxed alone, let further offers in stock through; most offers first."""
    have = _in_stock(rank(wish, market.offers), market.offers)
    found = []
    for key in active(wish):
        shelf = market.any_cuda if key == "minCudaVersion" else market.offers
        more = _in_stock(rank(without(wish, key), shelf), shelf) - have
        if more:
            found.append(Binding(key, setting(wish, key), len({spot[:2] for spot in more})))
    return tuple(sorted(found, key=lambda each: (-each.offers, each.filter)))


def active(wish: Wish) -> tuple[str, ...]:
    """The filters that this wish sets."""
    rules = wish.rules
    sets = {
        "gpuTypes": bool(wish.gpu_types),
        "blockedGpuTypes": bool(rules.blocked),
        "cloud": set(wish.clouds) != set(CLOUDS),
        "dataCenterIds": bool(wish.data_center_ids),
        "minCudaVersion": bool(wish.min_cuda_version),
        "minVramGb": rules.min_vram_gb > 0,
        "maxUsdPerPodHour": rules.max_usd_per_hr > 0,
        "avoid": bool(wish.avoid),
    }
    return tuple(key for key, is_set in sets.items() if is_set)


def without(wish: Wish, key: str) -> Wish:
    """The same wish with one filter less."""
    rules = wish.rules
    relaxed: Mapping[str, Callable[[], Wish]] = {
        "gpuTypes": lambda: replace(wish, gpu_types=()),
        "blockedGpuTypes": lambda: replace(wish, rules=replace(rules, blocked=())),
        "cloud": lambda: replace(wish, clouds=CLOUDS),
        "dataCenterIds": lambda: replace(wish, data_center_ids=()),
        "minCudaVersion": lambda: replace(wish, min_cuda_version=""),
        "minVramGb": lambda: replace(wish, rules=replace(rules, min_vram_gb=0.0)),
        "maxUsdPerPodHour": lambda: replace(wish, rules=replace(rules, max_usd_per_hr=0.0)),
        "avoid": lambda: replace(wish, avoid=()),
    }
    return relaxed[key]()


def setting(wish: Wish, key: str) -> str:
    """A filter as it stands in the stack file."""
    rules = wish.rules
    texts = {
        "gpuTypes": shown(wish.gpu_types),
        "blockedGpuTypes": shown(rules.blocked),
        "cloud": " or ".join(wish.clouds),
        "dataCenterIds": shown(wish.data_center_ids),
        "minCudaVersion": wish.min_cuda_version,
        "minVramGb": rules.min_vram_text,
        "maxUsdPerPodHour": f"{rules.max_usd_per_hr:g}",
        "avoid": f"hosts that {FAILED_AT_BOOT}",
    }
    return f"{key}: {texts[key]}"


def _in_stock(ranking: Ranking, offers: Iterable[Offer]) -> set[Spot]:
    """The candidates in stock; one for anywhere stands for each data centre that has it."""
    places = {
        (offer.gpu_id, offer.cloud): [place.id for place in offer.places if place.stock != SOLD_OUT] for offer in offers
    }
    found: set[Spot] = set()
    for candidate in ranking.candidates:
        if candidate.stock != SOLD_OUT:
            gpu, cloud, place = candidate.key
            found |= {(gpu, cloud, each) for each in ([place] if place else places[gpu, cloud] or [""])}
    return found
