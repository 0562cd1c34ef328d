"""`podfleet:capacity`: spot pods where there are any, else on-demand ones. Called by the program.

RunPod took spot out of its API in spring 2026: the catalogue names no spot price, and a create has no field to ask for
one. The wish is kept, told once, and never a reason to rent nothing. What would have to change is here: an offer that
names a spot price, and `PodRequest.body`, which would have to ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from podfleet.config import NAMESPACE
from podfleet.errors import ProviderError
from podfleet.placement import clouds_of
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.wire import GpuOffer

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

SPOT = "spot-if-offered"


def capacity_note(capacity: str, offers: Iterable[GpuOffer]) -> str:
    """What becomes of the wish for spot pods, in one line; empty where nobody asked for them."""
    if capacity != SPOT:
        return ""
    spot = sorted({f"{each.gpu} {each.cloud}" for each in offers if each.spot_usd_per_hr})
    told = f"{NAMESPACE}:capacity: {SPOT}:"
    if spot:
        named = f"RunPod names a spot price for {', '.join(spot)}, but no way to ask for it"
        return f"{told} {named}: on-demand pods are taken"
    return f"{told} RunPod offers no spot pods: on-demand pods are taken, at the prices above"


def read_capacity_note(config: PodfleetConfig, access: Access) -> str:
    """The note by the catalogue as it is now; one that does not answer offers no spot pods."""
    if config.capacity != SPOT:
        return ""
    try:
        with closing(RunpodClient(access)) as client:
            offers = [offer for cloud in clouds_of(config.cloud) for offer in client.gpu_offers(cloud=cloud)]
    except ProviderError:
        offers = []
    return capacity_note(config.capacity, offers)
