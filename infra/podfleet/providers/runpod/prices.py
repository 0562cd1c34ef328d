"""What a plan costs: the catalogue's offers and our live pods. Called by the program and by the reconciler."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podfleet.binding import Market, explain
from podfleet.errors import ApiUnavailable
from podfleet.placement import CLOUDS, Offer, Wish, clouds_of, rank, rules_of
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.catalogue import read_offers
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.quotes import Limits, Quote, pods_within, quote

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig


@dataclass(frozen=True, slots=True)
class Readings:
    """What was seen. `running_usd_per_hr`: the price of each live pod of ours by remote name."""

    offers: tuple[Offer, ...]
    running_usd_per_hr: dict[str, float]
    why_unknown: str = ""


def price_plan(config: PodfleetConfig, slots: Sequence[str], *, prefix: str, access: Access) -> Quote:
    """What `slots` cost, beside what runs now. A few reads, no writes. Raises ProviderError."""
    spec, wish = pod_spec(config), _wish(config)
    with closing(RunpodClient(access)) as client:
        seen = read(client, config, wish, prefix=prefix)
    return quote(
        rank(wish, seen.offers).candidates,
        running_usd_per_hr=seen.running_usd_per_hr,
        wanted=[remote_name(prefix, slot, config.uid, spec) for slot in slots],
        limits=Limits(config.max_pods, config.max_usd_per_hour),
        why_unknown=seen.why_unknown,
    )


def affordable_pods(client: RunpodClient, config: PodfleetConfig, *, prefix: str) -> int | None:
    """How many pods `maxUsdPerHour` pays for: those that run, and new ones at the first candidate's price.

    None where there is no limit, or no price to count with. Raises ProviderError.
    """
    if not config.max_usd_per_hour:
        return None
    wish = _wish(config)
    seen = read(client, config, wish, prefix=prefix)
    prices = [candidate.price_usd_per_hr for candidate in rank(wish, seen.offers).candidates]
    return pods_within(config.max_usd_per_hour, seen.running_usd_per_hr.values(), next(filter(None, prices), None))


def read(client: RunpodClient, config: PodfleetConfig, wish: Wish, *, prefix: str) -> Readings:
    """Offers of the stack's clouds, live pods of ours, and where no offer fits, why. Raises ProviderError.

    A catalogue that does not answer is no reason to hold up a scale-down: then there are no offers.
    """
    pods = [pod for pod in client.list_pods() if pod.live and is_ours(pod, uid=config.uid, prefix=prefix)]
    running = {pod.name: pod.cost_usd_per_hr for pod in pods}
    try:
        offers = read_offers(client, wish.clouds, wish.min_cuda_version)
        why = "" if rank(wish, offers).candidates else _why_none(client, wish)
    except ApiUnavailable:
        return Readings((), running, "the catalogue does not answer")
    return Readings(offers, running, why)


def _wish(config: PodfleetConfig) -> Wish:
    spec = pod_spec(config)
    return Wish(spec.gpu_types, clouds_of(spec.cloud), spec.data_center_ids, spec.min_cuda_version, rules_of(config))


def _why_none(client: RunpodClient, wish: Wish) -> str:
    with_floor = read_offers(client, CLOUDS, wish.min_cuda_version)
    market = Market(with_floor, read_offers(client, CLOUDS, "") if wish.min_cuda_version else with_floor)
    why = explain(wish, market)
    return f"no offer fits: {why}" if why else "nothing is in stock"
