"""What the plan costs: the catalogue's offers and our live pods, read for the preview. Called by `components.fleet`."""

from __future__ import annotations

from contextlib import closing

from podfleet.placement import Offer
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.client import Access, RunpodClient

NO_STOCK = "NONE"


def offers_and_running(access: Access, *, uid: str, prefix: str, cloud: str) -> tuple[list[Offer], dict[str, float]]:
    """Offers of one cloud, and the price in $/h of each live pod of ours by remote name. Reads only.

    Raises ProviderError.
    """
    with closing(RunpodClient(access)) as client:
        offers = [
            Offer(offer.gpu, offer.usd_per_hr, offer.availability != NO_STOCK)
            for offer in client.gpu_offers(cloud=cloud)
        ]
        pods = [pod for pod in client.list_pods() if pod.live and is_ours(pod, uid=uid, prefix=prefix)]
    return offers, {pod.name: pod.cost_usd_per_hr for pod in pods}
