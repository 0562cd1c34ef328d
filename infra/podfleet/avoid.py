"""Hosts where a pod of this stack failed to boot: remembered for a day in the checkout, told to the provider.

Written by `podfleet up --wait`. Every `up` of ours hands the list on as PODFLEET_AVOID, and the placement passes those
candidates over. To forget it: remove the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from podfleet.providers.runpod.rules import AVOID_VARIABLE

KEPT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class BadHost:
    """A GPU type in one cloud and data centre, as precisely as the API lets us name a host."""

    gpu: str
    cloud: str
    data_center_id: str
    reason: str
    at_s: float
    cuda_version: str = ""  # set where the driver was the reason

    @property
    def place(self) -> tuple[str, str, str]:
        return self.gpu, self.cloud, self.data_center_id


class AvoidList:
    """One stack's list, in one file. A file that cannot be read is an empty list: it only saves a failed boot."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def of(cls, state_dir: Path, stack: str) -> AvoidList:
        """The list of a stack, in the checkout's state folder."""
        return cls(state_dir / "avoid" / f"{stack}.json")

    def hosts(self, *, now_s: float) -> tuple[BadHost, ...]:
        """Those of the last day, oldest first."""
        try:
            found = TypeAdapter(list[BadHost]).validate_json(self.file.read_bytes())
        except (OSError, ValidationError):
            return ()
        return current(found, now_s=now_s)

    def add(self, host: BadHost) -> None:
        """Remember one host; what is older than a day goes."""
        kept = [known for known in self.hosts(now_s=host.at_s) if known.place != host.place]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps([asdict(known) for known in [*kept, host]], indent=1) + "\n")
        draft.replace(self.file)

    def variable(self, *, now_s: float) -> dict[str, str]:
        """For the environment of an `up`; the provider reads it."""
        return {AVOID_VARIABLE: told(self.hosts(now_s=now_s))}


def current(hosts: Iterable[BadHost], *, now_s: float) -> tuple[BadHost, ...]:
    """Not older than a day; a clock that was set back keeps them."""
    return tuple(sorted((host for host in hosts if now_s - host.at_s < KEPT_S), key=lambda host: host.at_s))


def told(hosts: Iterable[BadHost]) -> str:
    """As JSON for PODFLEET_AVOID; empty for none."""
    rows = []
    for host in hosts:
        row = {"gpu": host.gpu, "cloud": host.cloud, "dataCenterId": host.data_center_id}
        rows.append(row | ({"cudaVersion": host.cuda_version} if host.cuda_version else {}))
    return json.dumps(rows) if rows else ""
