"""What an account holds besides pods and secrets: registry logins, network volumes, templates, SSH keys.

Records only: a volume is not a disk here. `cloud` owns one `Account`; the RunPod routes call its verbs, each of which
has committed when it returns. `to_json` and `from_json` carry it over a restart of the daemon.
"""

import secrets
import string
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from localcloud.errors import Problem
from localcloud.events import EventLog
from localcloud.facts import Facts
from localcloud.model import Pod

LETTERS = string.ascii_lowercase + string.digits
GB_HOURS_PER_MONTH = 720.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Registry:
    """A login of a container registry; it leaves the account never again."""

    id: str
    name: str
    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Volume:
    """A network volume; `sizes` says since when it had which size (epoch seconds, GB)."""

    id: str
    serial: int
    name: str
    data_center_id: str
    type: str
    sizes: tuple[tuple[float, int], ...]
    ended_at_s: float | None = None

    @property
    def size_gb(self) -> int:
        """Its size now."""
        return self.sizes[-1][1]

    def spans(self, now_s: float) -> list[tuple[float, float, int]]:
        """(start, end, GB) from the first day to the last."""
        ends = [start for start, _ in self.sizes[1:]] + [now_s if self.ended_at_s is None else self.ended_at_s]
        return [(start, end, size_gb) for (start, size_gb), end in zip(self.sizes, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Template:
    """Settings of a container under a name. A pod takes them once and keeps no link."""

    id: str
    name: str
    image: str
    args: str = ""
    disk_gb: int = 10
    env: dict[str, str] = field(default_factory=dict, repr=False)
    ports: tuple[str, ...] = ()
    registry: str | None = None
    mounts: dict[str, Any] = field(default_factory=dict)
    serverless: bool = False
    public: bool = False
    category: str = "NVIDIA"
    start_ssh: bool = True
    start_jupyter: bool = True
    allowed_cuda_versions: tuple[str, ...] = ()


class Account:
    """Everything of one account that is not a pod or a secret."""

    def __init__(self, facts: Facts, events: EventLog) -> None:
        self._not_found = facts.texts.not_found
        self._storage = facts.storage
        self._centers = {center.id: center for center in facts.data_centers}
        self._events = events
        self._serial = 0
        self.registries: dict[str, Registry] = {}
        self.volumes: dict[str, Volume] = {}
        self.ended_volumes: dict[str, Volume] = {}
        self.templates: dict[str, Template] = {}
        self.ssh_keys: tuple[str, ...] = ()

    # -- registries -----------------------------------------------------------------------------------------------
    def create_registry(self, name: str, username: str, password: str) -> Registry:
        """Keep a login; names are not unique."""
        registry = Registry(_new_id(), name, username, password)
        self.registries[registry.id] = registry
        self._events.add("registry.created", registry_id=registry.id, name=name)
        return registry

    def registry(self, registry_id: str) -> Registry:
        """One login; Problem 404."""
        return self._found(self.registries, registry_id)

    def update_registry(self, registry_id: str, username: str, password: str) -> Registry:
        """Rotate a login (GraphQL alone can)."""
        registry = replace(self.registry(registry_id), username=username, password=password)
        self.registries[registry_id] = registry
        self._events.add("registry.updated", registry_id=registry_id, name=registry.name)
        return registry

    def delete_registry(self, registry_id: str, pods: Iterable[Pod]) -> None:
        """Forget it; Problem 400 while a pod pulls with it. Templates lose the reference."""
        registry = self.registry(registry_id)
        user = next((pod for pod in pods if pod.request.registry == registry_id), None)
        if user:
            raise Problem(400, f"registry credential is in use by pod {user.id}")
        del self.registries[registry_id]
        for template in self.templates.values():
            if template.registry == registry_id:
                self.templates[template.id] = replace(template, registry=None)
        self._events.add("registry.deleted", registry_id=registry_id, name=registry.name)

    # -- network volumes ------------------------------------------------------------------------------------------
    def create_volume(self, name: str, size_gb: int, data_center_id: str, kind: str | None) -> Volume:
        """Rent storage; Problem 400 where the data centre has none of this kind."""
        center = self._centers.get(data_center_id)
        if center is None:
            raise Problem(400, f"unknown data center {data_center_id!r}")
        kinds = center.network_volume_types
        if not kinds or kind not in (None, *kinds):
            raise Problem(400, f"data center {data_center_id} does not offer {kind or 'any'} network volumes")
        self._serial += 1
        volume = Volume(_new_id(), self._serial, name, data_center_id, kind or kinds[0], ((time.time(), size_gb),))
        self.volumes[volume.id] = volume
        self._events.add("volume.created", volume_id=volume.id, name=name, size_gb=size_gb)
        return volume

    def volume(self, volume_id: str) -> Volume:
        """One volume; Problem 404."""
        return self._found(self.volumes, volume_id)

    def update_volume(self, volume_id: str, name: str | None, size_gb: int | None) -> Volume:
        """Rename it, make it bigger; Problem 400 for smaller."""
        volume = self.volume(volume_id)
        if size_gb is not None and size_gb < volume.size_gb:
            raise Problem(400, f"size cannot be reduced from {volume.size_gb} GB to {size_gb} GB")
        if size_gb is not None and size_gb > volume.size_gb:
            volume = replace(volume, sizes=(*volume.sizes, (time.time(), size_gb)))
        volume = replace(volume, name=volume.name if name is None else name)
        self.volumes[volume_id] = volume
        self._events.add("volume.updated", volume_id=volume_id, name=volume.name, size_gb=volume.size_gb)
        return volume

    def delete_volume(self, volume_id: str, pods: Iterable[Pod]) -> None:
        """Give the storage back; Problem 409 while a pod mounts it."""
        volume = self.volume(volume_id)
        user = next((pod for pod in pods if volume_of(pod) == volume_id), None)
        if user:
            raise Problem(409, f"network volume is mounted by pod {user.id}")
        del self.volumes[volume_id]
        self.ended_volumes[volume_id] = replace(volume, ended_at_s=time.time())
        self._events.add("volume.deleted", volume_id=volume_id, name=volume.name)

    def all_volumes(self) -> list[Volume]:
        """Also those that are gone: they were paid for."""
        return [*self.ended_volumes.values(), *self.volumes.values()]

    def storage_usd(self, now_s: float) -> float:
        """What all volumes cost so far."""
        return sum(
            self.usd_per_hr(size_gb) * (end - start) / 3600
            for volume in self.all_volumes()
            for start, end, size_gb in volume.spans(now_s)
        )

    def storage_usd_per_hr(self) -> float:
        """What an hour of the volumes costs now."""
        return sum(self.usd_per_hr(volume.size_gb) for volume in self.volumes.values())

    def usd_per_hr(self, size_gb: int) -> float:
        """The price of one volume: from `large_from_gb` on the whole of it at the lower rate."""
        prices = self._storage
        large = size_gb >= prices.large_from_gb
        rate = prices.large_usd_per_gb_month if large else prices.usd_per_gb_month
        return rate * size_gb / GB_HOURS_PER_MONTH

    # -- templates ------------------------------------------------------------------------------------------------
    def create_template(self, template: Template) -> Template:
        """Keep settings under a new id; Problem 404 for an unknown registry."""
        if template.registry is not None:
            self.registry(template.registry)
        template = replace(template, id=_new_id())
        self.templates[template.id] = template
        self._events.add("template.created", template_id=template.id, name=template.name)
        return template

    def template(self, template_id: str) -> Template:
        """One template; Problem 404."""
        return self._found(self.templates, template_id)

    def update_template(self, template_id: str, changes: dict[str, Any]) -> Template:
        """Change what is given; pods that were made from it stay as they are."""
        template = replace(self.template(template_id), **changes)
        if template.registry is not None:
            self.registry(template.registry)
        self.templates[template_id] = template
        self._events.add("template.updated", template_id=template_id, name=template.name)
        return template

    def delete_template(self, template_id: str) -> None:
        """Forget it."""
        template = self.template(template_id)
        del self.templates[template_id]
        self._events.add("template.deleted", template_id=template_id, name=template.name)

    # -- SSH keys -------------------------------------------------------------------------------------------------
    def replace_ssh_keys(self, keys: tuple[str, ...]) -> None:
        """The whole set; pods that run keep what they have."""
        self.ssh_keys = keys
        self._events.add("ssh-keys.replaced", count=len(keys))

    # -- over a restart -------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """Everything, registry passwords included: for a file that only the owner reads."""
        return {
            "serial": self._serial,
            "registries": [asdict(registry) for registry in self.registries.values()],
            "volumes": [asdict(volume) for volume in self.all_volumes()],
            "templates": [asdict(template) for template in self.templates.values()],
            "ssh_keys": list(self.ssh_keys),
        }

    def from_json(self, kept: dict[str, Any]) -> None:
        """Take over what `to_json` gave."""
        self._serial = kept["serial"]
        self.registries = {row["id"]: Registry(**row) for row in kept["registries"]}
        volumes = [
            Volume(**{**row, "sizes": tuple((start, size_gb) for start, size_gb in row["sizes"])})
            for row in kept["volumes"]
        ]
        self.volumes = {volume.id: volume for volume in volumes if volume.ended_at_s is None}
        self.ended_volumes = {volume.id: volume for volume in volumes if volume.ended_at_s is not None}
        lists = ("ports", "allowed_cuda_versions")
        templates = [Template(**{**row, **{key: tuple(row[key]) for key in lists}}) for row in kept["templates"]]
        self.templates = {template.id: template for template in templates}
        self.ssh_keys = tuple(kept["ssh_keys"])

    def _found(self, records: dict[str, T], record_id: str) -> T:
        record = records.get(record_id)
        if record is None:
            raise Problem(404, self._not_found)
        return record


def volume_of(pod: Pod) -> str | None:
    """The network volume that a pod mounts."""
    mounts: dict[str, Any] = pod.request.mounts or {}
    network = mounts.get("network")
    return network[0]["volumeId"] if network else None


def _new_id() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(10))
