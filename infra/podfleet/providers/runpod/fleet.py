"""Guard and Sweep: the two looks at the whole fleet, before the pods and after them. Plain classes and pure choices.

The shells are `guard.GuardProvider` and `sweep.SweepProvider`; `podfleet sweep` may call the choices too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podfleet.errors import ConfigError, OtherFleetFound, PodsGone, StaleGeneration
from podfleet.providers.runpod.census import Census, is_ours
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.ending import Ending
from podfleet.providers.runpod.wire import PodView

HASH = re.compile(r"-[0-9a-f]{8}$")
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """Whose fleet, and the remote names that are wanted: a written list; `()` ends all."""

    uid: str
    prefix: str
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LateLooks:
    """When to look again after an update that was killed: what it had asked for may still be carried out."""

    clock: Clock
    until_s: float  # monotonic
    every_s: float

    def wait(self) -> Iterator[None]:
        """Lets time pass, and comes back for each look."""
        while (left_s := self.until_s - self.clock.monotonic_s()) > 0:
            self.clock.sleep(min(left_s, self.every_s))
            yield


class GuardCore:
    """Before any pod: records what is wanted, and ends pods of ours whose slot is not."""

    def __init__(
        self, census: Census, ending: Ending, new_generation: Callable[[], str], late: LateLooks | None = None
    ) -> None:
        self._census = census
        self._ending = ending
        self._new_generation = new_generation
        self._late = late

    def create(self, wish: Wish, *, adopt: bool) -> str:
        """The first generation. Pods of ours that no state knows of stop it, unless told to adopt them."""
        ours = _ours(self._census.now().pods, wish.uid, wish.prefix)
        if ours and not adopt:
            raise OtherFleetFound(_unknown_fleet(ours, wish), pods=[pod.id for pod in ours])
        self._ending.end(not_wanted_slots(ours, wish.wanted), why="slot not wanted")
        return self._new_generation()

    def update(self, wish: Wish, *, generation: str, expected: str) -> str:
        """End what is in no wanted slot; a slot that cannot be rented then does not block the scale-down of another.

        `expected`: the generation that the caller saw; empty where nobody looked before.
        """
        if expected and expected != generation:
            raise StaleGeneration
        ours = _ours(self._census.now().pods, wish.uid, wish.prefix)
        self._ending.end(not_wanted_slots(ours, wish.wanted), why="slot not wanted")
        return self._new_generation()

    def delete(self, uid: str, prefix: str) -> None:
        """Deleted last: whatever is left of ours ends here, before the volume that it may hold is asked to go."""
        self._ending.end(_ours(self._census.now().pods, uid, prefix), why="the fleet is destroyed")
        for _ in self._late.wait() if self._late else ():
            self._ending.end(_ours(self._census.now().pods, uid, prefix), why="rented by a killed update")


class SweepCore:
    """After the pods: ends what is ours and neither wanted by name nor known by id."""

    def __init__(self, census: Census, ending: Ending) -> None:
        self._census = census
        self._ending = ending

    def sweep(self, wish: Wish, *, pods: Collection[str], first: bool = False) -> None:
        """`first`: no Sweep was there before this one. Then pods of the state that are gone are an error.

        A `destroy` that was killed leaves such pods in the state, and an `up` after it would call an empty fleet done.
        """
        now = self._census.now()
        ours = _ours(now.pods, wish.uid, wish.prefix)
        self._ending.end(unknown_pods(ours, wanted=wish.wanted, known=pods), why="not wanted, not in the state")
        missing = [pod_id for pod_id in pods if now.find(pod_id) is None] if first else []
        if gone := sorted(self._census.absent(missing, since_s=now.asked_s)):
            text = f"pods {', '.join(gone)} are in the state and not there any more"
            raise PodsGone(f"{text}: `pulumi up --refresh` rents the slots again", pod_ids=gone)


def not_wanted_slots(ours: Sequence[PodView], wanted: Sequence[str]) -> list[PodView]:
    """Pods whose slot no wanted name has; a pod of another spec in a wanted slot is replaced by its own resource."""
    slots = {without_hash(name) for name in wanted}
    return [pod for pod in ours if without_hash(pod.name) not in slots]


def unknown_pods(ours: Sequence[PodView], *, wanted: Sequence[str], known: Collection[str]) -> list[PodView]:
    """Not in the state, and not wanted by name, or the double of a pod that is in the state (a create that came late).

    A known id is never ended, so an `up --target` of Sweep alone ends nothing.
    """
    taken = {pod.name for pod in ours if pod.id in known}
    return [pod for pod in ours if pod.id not in known and (pod.name not in wanted or pod.name in taken)]


def without_hash(name: str) -> str:
    """A remote name without its hash: prefix and slot."""
    return HASH.sub("", name)


def wish_problems(props: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(property, reason) for each input that is not as it must be. Only a written `[]` may end all pods."""
    problems = [(key, "must not be empty") for key in ("uid", "prefix") if not _text(props.get(key))]
    wanted, prefix = props.get("wanted"), str(props.get("prefix"))
    if not isinstance(wanted, list) or not all(_remote_name(name, prefix) for name in wanted):
        problems.append(("wanted", "must be a plain list of remote names; absent or unknown is not `[]`"))
    return problems


def wish_of(props: Mapping[str, Any]) -> Wish:
    """Raises ConfigError where `wish_problems` finds something."""
    problems = wish_problems(props)
    if problems:
        raise ConfigError("; ".join(f"{key} {reason}" for key, reason in problems))
    return Wish(str(props["uid"]), str(props["prefix"]), tuple(props["wanted"]))


def _ours(pods: Sequence[PodView], uid: str, prefix: str) -> list[PodView]:
    return [pod for pod in pods if is_ours(pod, uid=uid, prefix=prefix)]


def _unknown_fleet(ours: Sequence[PodView], wish: Wish) -> str:
    shown = ", ".join(f"{pod.name} ({pod.id}, {pod.status})" for pod in ours[:SHOWN])
    more = f" and {len(ours) - SHOWN} more" if len(ours) > SHOWN else ""
    return (
        f"pods of uid {wish.uid} are there that this state does not know: {shown}{more}; nothing was changed. "
        "Is the state lost, or does another checkout run this fleet? To take them over: podfleet:adopt: true"
    )


def _remote_name(name: object, prefix: str) -> bool:
    return isinstance(name, str) and name.startswith(prefix) and bool(HASH.search(name))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
