"""What the stand-in engine is told to bring about: the resources of `infra/__main__.py`, without Pulumi. PURE.

Called by the driver, which hands the result to `engine.Engine`, and by the stateful property test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GPUS = ("NVIDIA L4", "NVIDIA RTX A4000")
PLACE = "EU-RO-1"
IMAGES = ("chaos/node:1", "chaos/node:2")


@dataclass(frozen=True, slots=True)
class Ref:
    """An input that is another resource's output; `id` is the resource's id."""

    name: str
    prop: str


@dataclass(frozen=True, slots=True)
class Declared:
    """One resource as the program registers it; `after` names resources that come first beside those it refers to."""

    name: str
    kind: str
    inputs: Mapping[str, Any]
    after: tuple[str, ...] = ()

    @property
    def dependencies(self) -> frozenset[str]:
        """All that has to be there before it."""
        return frozenset(self.after) | _referred(self.inputs)


@dataclass(frozen=True, slots=True)
class Size:
    """How many pods, of which image, with which account secret and volume: what a person changes between updates."""

    pods: int
    image: int = 0
    account: int = 0

    def __str__(self) -> str:
        other = " with another secret and a bigger volume" if self.account else ""
        return f"{self.pods}" + (" of another image" if self.image else "") + other

    @property
    def slots(self) -> tuple[str, ...]:
        """slot-01 … slot-N."""
        return tuple(f"slot-{number:02d}" for number in range(1, self.pods + 1))


@dataclass(frozen=True, slots=True)
class Fleet:
    """One stack: whose pods, what they are called, and the value of its account secret.

    `stores`: it also has a registry login and a network volume, which its pods use.
    """

    uid: str
    prefix: str
    secret_value: str = field(repr=False)
    stores: bool = False
    ports: tuple[str, ...] = ()
    adopt: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def secret_name(self) -> str:
        """Fixed for the stack, as are those of the others."""
        return self._account_name("tailnet")

    def holds(self) -> dict[str, str]:
        """Kind → name of what this fleet has in the account beside its pods."""
        stores = {"registry": self._account_name("registry"), "volume": self._account_name("models")}
        return {"secret": self.secret_name, **(stores if self.stores else {})}

    def _account_name(self, purpose: str) -> str:
        return f"{self.prefix}{purpose}-{_hash(self.uid)}"

    def names(self, size: Size) -> list[str]:
        """The remote names that are wanted."""
        return [self._name(slot, size) for slot in size.slots]

    def program(self, size: Size) -> list[Declared]:
        """Holdings, secret, stores, Guard, a pod per slot, Sweep."""
        return self.program_of([(slot, size.image) for slot in size.slots], account=size.account)

    def program_of(self, slots: Sequence[tuple[str, int]], *, account: int = 0) -> list[Declared]:
        """The same for chosen slots, each with its image."""
        names = {slot: self._name(slot, Size(0, image)) for slot, image in slots}
        wish = {"uid": self.uid, "prefix": self.prefix, "wanted": list(names.values())}
        parts = self._account(account)
        sweep = {**wish, "pods": [Ref(slot, "id") for slot in names], "generation": Ref("guard", "generation")}
        first = tuple(each.name for each in parts)
        return [
            *parts,
            Declared("guard", "guard", {**wish, "adopt": self.adopt, "generation": None}, after=first),
            *(Declared(slot, "pod", self._pod(slot, names[slot], image), after=("guard",)) for slot, image in slots),
            Declared("sweep", "sweep", sweep, after=("guard", *names)),
        ]

    def _account(self, which: int) -> list[Declared]:
        names = self.holds()
        value = self.secret_value + "-rotated" * which
        secret = {"name": names["secret"], "value": value, "description": "of a chaos point"}
        parts = [
            Declared("holdings", "holdings", {"uid": self.uid, "prefix": self.prefix}),
            Declared("secret", "secret", secret, after=("holdings",)),
        ]
        if self.stores:
            login = {"name": names["registry"], "username": "chaos", "password": f"{self.secret_value}-login"}
            volume = {"name": names["volume"], "sizeGb": 10 + 10 * which, "dataCenterId": PLACE, "type": "STANDARD"}
            parts.append(Declared("registry", "registry", login, after=("holdings",)))
            parts.append(Declared("volume", "volume", volume, after=("holdings",)))
        return parts

    def _name(self, slot: str, size: Size) -> str:
        return f"{self.prefix}{slot}-{_hash(self.uid + IMAGES[size.image])}"

    def _pod(self, slot: str, name: str, image: int) -> dict[str, Any]:
        stores = {"registryId": Ref("registry", "id"), "volumeId": Ref("volume", "id"), "volumePath": "/models"}
        return {
            **(stores if self.stores else {}),
            "name": name,
            "uid": self.uid,
            "slot": slot,
            "specHash": name.rsplit("-", 1)[1],
            "image": IMAGES[image],
            "gpuTypes": list(GPUS),
            "cloud": "SECURE",
            "dataCenterIds": [PLACE] if self.stores else [],
            "minCudaVersion": "",
            "diskGb": 10,
            "ports": list(self.ports),
            "env": {**self.env, "PODFLEET_TAILNET_KEY": "{{ RUNPOD_SECRET_" + self.secret_name + " }}"},
            "status": None,
            "gpu": None,
            "costUsdPerHr": None,
            "createdAtS": None,
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _referred(value: Any) -> frozenset[str]:
    if isinstance(value, Ref):
        return frozenset({value.name})
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return frozenset().union(*map(_referred, inner))
