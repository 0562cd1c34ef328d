"""What a fleet costs: offers, prices now and then. Pure.

The program asks it for the line that the preview shows; the order in which GPU types are tried is the stack's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """A GPU type in one cloud, as the catalogue shows it."""

    gpu_id: str
    price_usd_per_hr: float
    available: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """Money in a plan, in US dollars per hour. `then_usd_per_hr` is None when the catalogue knows none of the GPUs."""

    now_usd_per_hr: float
    then_usd_per_hr: float | None
    most_usd_per_hr: float | None
    gpu_id: str
    pods_now: int
    pods_then: int
    max_pods: int

    def __str__(self) -> str:
        pods = f"{self.pods_now} → {self.pods_then} pods"
        if self.then_usd_per_hr is None or self.most_usd_per_hr is None:
            return (
                f"${self.now_usd_per_hr:.2f}/h now → price unknown: the catalogue does not show {self.gpu_id} ({pods})"
            )
        return (
            f"${self.now_usd_per_hr:.2f}/h now → ${self.then_usd_per_hr:.2f}/h then "
            f"({pods}, new ones on {self.gpu_id}; at most ${self.most_usd_per_hr:.2f}/h with {self.max_pods} pods)"
        )


def wished(gpu_types: Sequence[str], offers: Sequence[Offer]) -> list[Offer]:
    """The offers of the wished GPU types, in the order of the wish."""
    by_id = {offer.gpu_id: offer for offer in offers}
    return [by_id[gpu] for gpu in gpu_types if gpu in by_id]


def quote(
    *,
    gpu_types: Sequence[str],
    offers: Sequence[Offer],
    running_usd_per_hr: Mapping[str, float],
    wanted: Sequence[str],
    max_pods: int,
) -> Quote:
    """What the wanted pods cost: those that run at their own price, new ones at the first wished type in stock.

    `running_usd_per_hr` maps remote names of live pods to their price.
    """
    choices = wished(gpu_types, offers)
    first = next((offer for offer in choices if offer.available), choices[0] if choices else None)
    then = most = None
    if first is not None:
        then = sum(running_usd_per_hr.get(name, first.price_usd_per_hr) for name in wanted)
        most = max_pods * max(offer.price_usd_per_hr for offer in choices)
    return Quote(
        now_usd_per_hr=sum(running_usd_per_hr.values()),
        then_usd_per_hr=then,
        most_usd_per_hr=most,
        gpu_id=first.gpu_id if first else gpu_types[0],
        pods_now=len(running_usd_per_hr),
        pods_then=len(wanted),
        max_pods=max_pods,
    )
