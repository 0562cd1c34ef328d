"""The stand-in engine's state: what a kill loses and keeps, as with Pulumi's file backend.

A resource stands in it only when its create has returned; each save is whole or not at all; secret properties are
encrypted. After each save somebody (the emulator's ledger) is told which pods are owned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

SECRET_PROPS = {"secret": ("value",), "registry": ("username", "password")}
SEALED = "__sealed"
POD = "pod"


@dataclass(slots=True)
class Resource:
    """One resource that exists, as far as the engine knows."""

    name: str
    kind: str
    id: str
    inputs: dict[str, Any] = field(repr=False)
    outputs: dict[str, Any] = field(repr=False)
    after: list[str]


def _nothing(_ids: list[str]) -> None:
    """Nobody is told."""


class StateFile:
    """Loads and saves. `told` hears the pods' ids after each save, once they are owned."""

    def __init__(self, path: Path, key: bytes, told: Callable[[list[str]], None] = _nothing) -> None:
        self.path = path
        self._fernet = Fernet(key)
        self._told = told

    def load(self) -> dict[str, Resource]:
        """Name → resource, in the order of their creation; says anew who is owned."""
        found = self._read()
        self._tell(found)
        return found

    def save(self, resources: dict[str, Resource], pending: list[str]) -> None:
        """All of it; `pending` are operations that have begun."""
        lines = [self._seal(asdict(each)) for each in resources.values()]
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps({"resources": lines, "pending": pending}, indent=1), "utf-8")
        draft.replace(self.path)
        self._tell(resources)

    def pod_ids(self) -> set[str]:
        """Ids of the pods in the state."""
        return {each.id for each in self._read().values() if each.kind == POD}

    def _read(self) -> dict[str, Resource]:
        if not self.path.exists():
            return {}
        lines = json.loads(self.path.read_text("utf-8"))["resources"]
        return {line["name"]: Resource(**self._unseal(line)) for line in lines}

    def _tell(self, resources: dict[str, Resource]) -> None:
        self._told(sorted(each.id for each in resources.values() if each.kind == POD))

    def _seal(self, line: dict[str, Any]) -> dict[str, Any]:
        return self._changed(line, lambda value: {SEALED: self._fernet.encrypt(json.dumps(value).encode()).decode()})

    def _unseal(self, line: dict[str, Any]) -> dict[str, Any]:
        return self._changed(line, lambda value: json.loads(self._fernet.decrypt(value[SEALED].encode())))

    @staticmethod
    def _changed(line: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
        hidden = SECRET_PROPS.get(line["kind"], ())

        def through(props: dict[str, Any]) -> dict[str, Any]:
            return {key: change(value) if key in hidden else value for key, value in props.items()}

        return {**line, "inputs": through(line["inputs"]), "outputs": through(line["outputs"])}
