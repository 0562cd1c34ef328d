"""What a plan costs: the catalogue's offers and our live pods. Called by the program and by `reconcile --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from podfleet.errors import ApiUnavailable
from podfleet.placement import Offer, Quote, quote
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.client import Access, RunpodClient

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

NO_STOCK = "NONE"


def price_plan(config: PodfleetConfig, slots: Sequence[str], *, prefix: str, access: Access) -> Quote:
    """What `slots` cost, beside what runs now. Two reads, no writes. Raises ProviderError."""
    offers, running = offers_and_running(access, config, prefix=prefix)
    spec = pod_spec(config)
    return quote(
        gpu_types=config.gpu_types,
        offers=offers,
        running_usd_per_hr=running,
        wanted=[remote_name(prefix, slot, config.uid, spec) for slot in slots],
        max_pods=config.max_pods,
    )


def offers_and_running(access: Access, config: PodfleetConfig, *, prefix: str) -> tuple[list[Offer], dict[str, float]]:
    """Offers of the stack's cloud, and the price in $/h of each live pod of ours by remote name. Raises ProviderError.

    A catalogue that does not answer is no reason to hold up a scale-down: then there are no offers.
    """
    with closing(RunpodClient(access)) as client:
        pods = [pod for pod in client.list_pods() if pod.live and is_ours(pod, uid=config.uid, prefix=prefix)]
        try:
            found = client.gpu_offers(cloud=config.cloud, min_cuda_version=config.min_cuda_version)
        except ApiUnavailable:
            found = ()
    offers = [Offer(offer.gpu, offer.usd_per_hr, offer.availability != NO_STOCK) for offer in found]
    return offers, {pod.name: pod.cost_usd_per_hr for pod in pods}
