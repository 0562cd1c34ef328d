"""What must be true after a follow-up: pods as wanted, the foreign ones untouched, nothing unowned, no secret seen.

The emulator's own pods and ledger are the witness, never the client's list. Called by `strike`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.chaos.program import Fleet

LIVE = ("PROVISIONING", "STARTING", "RUNNING")
MAX_UNOWNED_S = 60.0
Pods = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger at one moment: unowned seconds by pod id, of one fleet."""

    unowned_s: Mapping[str, float]

    @classmethod
    def of(cls, ledger: Mapping[str, Any], prefix: str, foreign: Collection[str]) -> Books:
        """Lines of pods whose name begins with `prefix` and that are not somebody else's."""
        lines = (line for line in ledger["pods"] if line["name"].startswith(prefix) and line["id"] not in foreign)
        return cls({line["id"]: float(line["unowned_s"]) for line in lines})

    def since(self, earlier: Books) -> float:
        """The longest time that a pod was charged without an owner from `earlier` to now."""
        grown = (seconds - earlier.unowned_s.get(pod_id, 0.0) for pod_id, seconds in self.unowned_s.items())
        return max(grown, default=0.0)


@dataclass(frozen=True, slots=True)
class Canaries:
    """Texts that no file, log or command line may hold; `patterns` are looked for in files alone."""

    texts: tuple[str, ...] = field(repr=False)
    patterns: tuple[str, ...] = ()

    def in_files(self, folder: Path) -> list[str]:
        """Files below `folder` that hold one."""
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return [str(path.relative_to(folder)) for path in files if self._in(_read(path), self.texts + self.patterns)]

    def in_processes(self) -> list[str]:
        """Command lines of this machine that hold one, by pid."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if self._in(line, self.texts):
                    found.append(entry.name)
        return found

    @staticmethod
    def _in(text: bytes, canaries: Sequence[str]) -> bool:
        return any(canary.encode() in text for canary in canaries)


def ours(pods: Pods, fleet: Fleet) -> list[Mapping[str, Any]]:
    """Pods of this fleet that are not terminated, whoever knows of them."""
    return [
        pod
        for pod in pods
        if pod["status"] != "TERMINATED"
        and pod["name"].startswith(fleet.prefix)
        and (pod.get("env") or {}).get("PODFLEET_UID") == fleet.uid
    ]


def pod_problems(pods: Pods, fleet: Fleet, wanted: Sequence[str], known: Collection[str]) -> list[str]:
    """Pods of our uid = slots wanted, each alive and in the state."""
    mine = ours(pods, fleet)
    problems = []
    names = sorted(pod["name"] for pod in mine)
    if names != sorted(wanted):
        problems.append(f"pods of our uid are {_listed(mine)}, wanted are {sorted(wanted) or 'none'}")
    if dead := [pod for pod in mine if pod["status"] not in LIVE]:
        problems.append(f"not alive: {_listed(dead)}")
    if (ids := {pod["id"] for pod in mine}) != set(known):
        problems.append(f"the state knows {sorted(known)}, the cloud has {sorted(ids)}")
    return problems


def orphans(pods: Pods, fleet: Fleet, wanted: Collection[str], known: Collection[str]) -> int:
    """Pods of our uid that nobody wants, or that nobody knows of."""
    return sum(pod["name"] not in wanted or pod["id"] not in known for pod in ours(pods, fleet))


def foreign_problems(pods: Pods, foreign: Iterable[str]) -> list[str]:
    """Pods of others that are gone."""
    live = {pod["id"] for pod in pods if pod["status"] != "TERMINATED"}
    gone = sorted(set(foreign) - live)
    return [f"foreign pods were ended: {gone}"] if gone else []


def unowned_problems(worst_s: float) -> list[str]:
    """Too long is longer than a minute."""
    return [f"a pod was charged without an owner for {worst_s:.0f} s"] if worst_s > MAX_UNOWNED_S else []


def leak_problems(canaries: Canaries, folder: Path) -> list[str]:
    """Secrets in state, logs, process arguments."""
    problems = [f"a secret stands in {name}" for name in canaries.in_files(folder)]
    return problems + [f"a secret stands in the arguments of process {pid}" for pid in canaries.in_processes()]


def _read(path: Path) -> bytes:
    """Nothing where it went between two looks: a draft that has become the state."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _listed(pods: Pods) -> str:
    return json.dumps([f"{pod['name']} {pod['id']} {pod['status']}" for pod in pods])
