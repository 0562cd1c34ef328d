"""Which GPU, cloud and data centre to ask for, in which order, and why not the others. Pure.

The provider's create loop ranks the catalogue's offers by it; the price in a plan is that of the first candidate. The
filters are config keys; which of them to relax where nothing fits is said by `binding`. Decision 0009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from podfleet.gpus import Basis, speed_of, vram_need_gb

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

SOLD_OUT, SCARCE = "NONE", "LOW"
CLOUDS = ("SECURE", "COMMUNITY")
SHOWN_VALUES = 2
FAILED_AT_BOOT = "failed at boot"
ALIKE = 3  # so many of a kind have a line each


@dataclass(frozen=True, slots=True)
class Place:
    """A data centre that has the offer, and how much of it."""

    id: str
    stock: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A GPU type in one cloud, as the catalogue shows it. Price 0 and memory 0: not known."""

    gpu_id: str
    cloud: str
    price_usd_per_hr: float
    stock: str
    vram_gb: float = 0.0
    places: tuple[Place, ...] = ()
    cuda_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Avoid:
    """Hosts that have failed, as precisely as they can be named; without a data centre: the whole offer."""

    gpu: str
    cloud: str
    data_center_id: str = ""
    cuda_version: str = ""

    def hits(self, gpu_id: str, cloud: str, place: str) -> bool:
        return (self.gpu, self.cloud) == (gpu_id, cloud) and self.data_center_id in ("", place)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of machines beyond the pod's own spec: no change of it touches a running pod."""

    order: str = "price"
    speeds: tuple[tuple[str, float], ...] = ()
    blocked: tuple[str, ...] = ()
    min_vram_gb: float = 0.0
    max_usd_per_hr: float = 0.0
    engine: str = ""
    model: str = ""

    @property
    def min_vram_text(self) -> str:
        """For people: whose wish it is."""
        by_model = self.min_vram_gb == vram_need_gb(self.engine, self.model)
        return f"{self.min_vram_gb:g}" + (f" ({self.engine} {self.model}".rstrip() + " needs it)" if by_model else "")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod has to run on. Empty means any."""

    gpu_types: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ("SECURE",)
    data_center_ids: tuple[str, ...] = ()
    min_cuda_version: str = ""
    rules: Rules = field(default_factory=Rules)
    avoid: tuple[Avoid, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One POST. Without a data centre RunPod chooses among all of them."""

    gpu_id: str
    cloud: str
    data_center_id: str | None
    price_usd_per_hr: float
    usd_per_audio_hr: float
    stock: str
    basis: Basis = Basis.PLANNED

    @property
    def key(self) -> tuple[str, str, str | None]:
        return self.gpu_id, self.cloud, self.data_center_id

    @property
    def where(self) -> str:
        """Without the price."""
        return f"{self.gpu_id} {self.cloud}" + (f" {self.data_center_id}" if self.data_center_id else "")

    def __str__(self) -> str:
        if not self.price_usd_per_hr:
            return f"{self.where} at an unknown price"
        return f"{self.where} at ${self.price_usd_per_hr:.2f}/h, {audio_price(self.usd_per_audio_hr, self.basis)}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An offer that is not asked for: `filter` is the config key that stops it (or `stock`, `avoid`)."""

    what: str
    filter: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason} ({self.filter})"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in the order of trial, and every other offer with the first reason against it."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]


def audio_price(usd_per_audio_hr: float, basis: Basis) -> str:
    """`$0.00054 per hour of audio (estimated by ratio)`."""
    return f"${usd_per_audio_hr:.2g} per hour of audio ({basis})"


def clouds_of(cloud: str) -> tuple[str, ...]:
    """SECURE, COMMUNITY or ALL → the clouds; RunPod itself knows no ALL."""
    return CLOUDS if cloud == "ALL" else (cloud,)


def rules_of(config: PodfleetConfig) -> Rules:
    return Rules(
        order=config.gpu_order,
        speeds=tuple(sorted(config.gpu_speeds.items())),
        blocked=config.blocked_gpu_types,
        min_vram_gb=config.min_vram_gb or vram_need_gb(config.engine, config.model),
        max_usd_per_hr=config.max_usd_per_pod_hour,
        engine=config.engine,
        model=config.model,
    )


def rank(wish: Wish, offers: Sequence[Offer]) -> Ranking:
    """Candidates by dollars per hour of audio (or as listed), what is sold out last; the others with their reason.

    An offer that is sold out is asked for only where `gpuTypes` names it: a catalogue may lag, but not by a whole list.
    """
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    for offer in sorted(offers, key=lambda offer: (offer.gpu_id, offer.cloud)):
        reasons = [(key, reason) for key, check in CHECKS.items() if (reason := check(wish, offer))]
        if reasons:
            rejected.append(Rejected(f"{offer.gpu_id} {offer.cloud}", *reasons[0]))
            continue
        for spot in _spots(wish, offer):
            if isinstance(spot, Rejected):
                rejected.append(spot)
            else:
                candidates.append(_candidate(wish, offer, spot))
    known = {offer.gpu_id for offer in offers if offer.cloud in wish.clouds}
    unknown = [gpu for gpu in wish.gpu_types if gpu not in known]
    rejected += [Rejected(gpu, "gpuTypes", f"no offer of it in {' or '.join(wish.clouds)}") for gpu in unknown]
    return Ranking(tuple(sorted(candidates, key=_order(wish))), tuple(rejected))


def summary(rejected: Sequence[Rejected], limit: int) -> tuple[str, ...]:
    """At most `limit` lines, the rarer reasons first; one that many offers share takes one line."""
    groups: dict[str, list[Rejected]] = {}
    for each in rejected:
        groups.setdefault(each.filter, []).append(each)
    lines: list[str] = []
    for group in sorted(groups.values(), key=len):
        if len(group) <= ALIKE:
            lines += [str(each) for each in group]
        else:
            lines.append(f"{group[0]}, and {len(group) - 1} more by {group[0].filter}")
    return tuple(lines[:limit])


def version_of(text: str) -> tuple[int, ...]:
    """`12.8` → (12, 8); empty for what is no version."""
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        return ()


# Filters of a whole offer: the reason against it, or nothing. In the order in which they are told.


def _gpu_types(wish: Wish, offer: Offer) -> str:
    return "" if not wish.gpu_types or offer.gpu_id in wish.gpu_types else "not listed"


def _blocked(wish: Wish, offer: Offer) -> str:
    return "blocked" if offer.gpu_id in wish.rules.blocked else ""


def _cloud(wish: Wish, offer: Offer) -> str:
    return "" if offer.cloud in wish.clouds else "another cloud"


def _cuda(wish: Wish, offer: Offer) -> str:
    """Unknown versions pass: the create asks for the floor, and the answer is checked."""
    known = [version for text in offer.cuda_versions if (version := version_of(text))]
    if not wish.min_cuda_version or not known or max(known) >= version_of(wish.min_cuda_version):
        return ""
    return f"no host above CUDA {'.'.join(map(str, max(known)))}"


def _vram(wish: Wish, offer: Offer) -> str:
    need = wish.rules.min_vram_gb
    unknown_but_named = not offer.vram_gb and offer.gpu_id in wish.gpu_types
    return "" if offer.vram_gb >= need or unknown_but_named else f"{offer.vram_gb:g} GB, {need:g} are needed"


def _price(wish: Wish, offer: Offer) -> str:
    cap = wish.rules.max_usd_per_hr
    return f"${offer.price_usd_per_hr:.2f}/h" if cap and offer.price_usd_per_hr > cap else ""


CHECKS: Mapping[str, Callable[[Wish, Offer], str]] = {
    "gpuTypes": _gpu_types,
    "blockedGpuTypes": _blocked,
    "cloud": _cloud,
    "minVramGb": _vram,
    "minCudaVersion": _cuda,
    "maxUsdPerPodHour": _price,
}


def _spots(wish: Wish, offer: Offer) -> Iterator[Place | Rejected]:
    """Where to ask for an offer that fits: anywhere (a place without an id), or data centre by data centre."""
    name = f"{offer.gpu_id} {offer.cloud}"
    for place in _places(wish, offer):
        what = f"{name} {place.id}".rstrip()
        if bad := next((each for each in wish.avoid if each.hits(offer.gpu_id, offer.cloud, place.id)), None):
            cuda = f" (CUDA {bad.cuda_version})" if bad.cuda_version else ""
            yield Rejected(what, "avoid", FAILED_AT_BOOT + cuda)
        elif place.stock == SOLD_OUT and not wish.gpu_types:
            floor = f" with CUDA {wish.min_cuda_version} or later" if wish.min_cuda_version else ""
            yield Rejected(what, "stock", f"none free{floor}")
        else:
            yield place
    if wish.data_center_ids and offer.places and not {place.id for place in offer.places} & set(wish.data_center_ids):
        yield Rejected(name, "dataCenterIds", f"not in {shown(wish.data_center_ids)}")


def _places(wish: Wish, offer: Offer) -> tuple[Place, ...]:
    """One place without an id where any data centre will do; all of them by name where one is to be avoided.

    Where one is to be avoided and no other is known, that one stands for the offer: it is passed over as a whole.
    """
    if wish.data_center_ids:
        known = {place.id: place for place in offer.places}
        return tuple(
            known.get(wanted, Place(wanted, offer.stock))
            for wanted in wish.data_center_ids
            if wanted in known or not known
        )
    avoided = [each for each in wish.avoid if (each.gpu, each.cloud) == (offer.gpu_id, offer.cloud)]
    if avoided and offer.places:
        return offer.places
    somewhere = next((place.stock for place in offer.places if place.stock != SOLD_OUT), offer.stock)
    stock = somewhere if offer.stock == SOLD_OUT else offer.stock
    return (Place(avoided[0].data_center_id if avoided else "", stock),)


def _candidate(wish: Wish, offer: Offer, place: Place) -> Candidate:
    rules = wish.rules
    speed = speed_of(offer.gpu_id, engine=rules.engine, model=rules.model, measured=dict(rules.speeds))
    return Candidate(
        offer.gpu_id,
        offer.cloud,
        place.id or None,
        offer.price_usd_per_hr,
        offer.price_usd_per_hr / speed.audio_s_per_s,
        place.stock,
        speed.basis,
    )


def _order(wish: Wish) -> Callable[[Candidate], tuple[object, ...]]:
    """Sold out last; then as listed, or by price with what is scarce after the same price elsewhere."""
    listed = dict(zip(wish.gpu_types, count()))
    places = dict(zip(wish.data_center_ids, count()))

    def key(candidate: Candidate) -> tuple[object, ...]:
        sold_out = candidate.stock == SOLD_OUT
        cloud = CLOUDS.index(candidate.cloud) if candidate.cloud in CLOUDS else len(CLOUDS)
        place = (places.get(candidate.data_center_id or "", 0), candidate.data_center_id or "")
        if wish.rules.order == "listed":
            return sold_out, listed.get(candidate.gpu_id, len(listed)), candidate.gpu_id, cloud, *place
        scarce = candidate.stock == SCARCE
        return sold_out, round(candidate.usd_per_audio_hr, 9), scarce, cloud, candidate.gpu_id, *place

    return key


def shown(values: Sequence[str]) -> str:
    """The first of a list, and how many more."""
    more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
    return ", ".join(values[:SHOWN_VALUES]) + more
