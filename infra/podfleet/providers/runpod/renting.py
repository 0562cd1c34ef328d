"""What a create goes by, and what it comes to: policy, means, the ranking of a reading. Used by `core.PodCore`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from podfleet.placement import Avoid, Ranking, Rules, Wish, rank
from podfleet.providers.runpod.catalogue import Catalogue, Shelf, blind
from podfleet.providers.runpod.spend import Spends
from podfleet.providers.runpod.wire import PodView


@dataclass(frozen=True, slots=True)
class RentPolicy:
    """What comes from the configuration, not from the pod's inputs."""

    reconcile_s: float
    reconcile_pause_s: float
    max_runtime_s: float
    rounds: int = 1
    round_wait_s: float = 0.0
    rules: Rules = field(default_factory=Rules)
    avoid: tuple[Avoid, ...] = ()


@dataclass(frozen=True, slots=True)
class Means:
    """What a create needs besides the cloud itself. `jitter`: a number from 0 to 1."""

    catalogue: Catalogue
    spend: Spends
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rented:
    """A pod, the candidate that it came from, and why not another one; the texts are for people."""

    pod: PodView
    candidate: str
    rejected: tuple[str, ...] = ()


def ranking(wish: Wish, shelf: Shelf) -> Ranking:
    """By the catalogue; where it does not answer, by the stack's own list."""
    return rank(*blind(wish)) if shelf.trouble else rank(wish, shelf.offers)


def adopted_from(pod: PodView) -> Rented:
    """A pod that was there already."""
    return Rented(pod, f"{pod.gpu} {pod.cloud} {pod.data_center_id}".strip() + ", found by its name")
