"""The transcription server's register of nodes: who is heard, and rows whose pod is gone. Called by `sweeping`.

Works with podfleet's own queue server and with cast2md, whose times have no zone: where a row's silence cannot be
computed, the server's own list of stale rows is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import httpx

from podfleet.errors import SignalError
from podfleet.signals.server import Server, Wire

NO_SUCH_ROUTE = frozenset({405, 501})


@dataclass(frozen=True, slots=True)
class Row:
    """One registration. `silent_s`: None where it cannot be told; infinite for one that was never heard."""

    id: str
    name: str
    online: bool
    silent_s: float | None


class _Node(Wire):
    id: str
    name: str
    status: str
    last_heartbeat: str | None = None


class _Nodes(Wire):
    nodes: list[_Node]


class _Stale(Wire):
    id: str


class _StaleNodes(Wire):
    nodes: list[_Stale]


class NodeRegister(Server):
    """One server's. Every method raises SignalError when the answer is missing or not understood."""

    def rows(self, *, now_s: float, silence_s: float) -> tuple[Row, ...]:
        """All registrations; `silence_s` is the limit that matters, for servers whose times cannot be compared."""
        nodes = self._read("/api/nodes", _Nodes).nodes
        silent = {node.id: _silent_s(node, now_s) for node in nodes}
        if any(silent_s is None for silent_s in silent.values()):
            stale = self._stale(silence_s)
            for node_id, silent_s in silent.items():
                if silent_s is None and stale is not None:
                    silent[node_id] = silence_s if node_id in stale else 0.0
        return tuple(Row(node.id, node.name, node.status != "offline", silent[node.id]) for node in nodes)

    def forget(self, node_id: str) -> None:
        """Deregister; an absent row is a success."""
        try:
            status = self._http.delete(f"/api/nodes/{node_id}").status_code
        except httpx.HTTPError as error:
            raise SignalError(f"{self._url}/api/nodes: {error or type(error).__name__}") from None
        if status in NO_SUCH_ROUTE:
            raise SignalError("this server has no way to remove a node")
        if status >= httpx.codes.BAD_REQUEST and status != httpx.codes.NOT_FOUND:
            raise SignalError(f"{self._url}/api/nodes answered {status}")

    def _stale(self, silence_s: float) -> frozenset[str] | None:
        """Ids of rows that the server has not heard for so long; None where it cannot be asked like that."""
        try:
            nodes = self._read("/api/nodes/stale", _StaleNodes, {"offline_hours": silence_s / 3600}).nodes
        except SignalError:
            return None
        return frozenset(node.id for node in nodes)


def silences(rows: Iterable[Row]) -> dict[str, float | None]:
    """Seconds since the last heartbeat by name, of its best row; a name that was never heard is missing."""
    by_name: dict[str, list[float | None]] = {}
    for row in rows:
        if row.silent_s != float("inf"):
            by_name.setdefault(row.name, []).append(row.silent_s)
    return {name: _least(each) for name, each in by_name.items()}


def _least(silent_s: list[float | None]) -> float | None:
    """None where a row that cannot be judged might be the one that is heard."""
    known = [each for each in silent_s if each is not None]
    return None if len(known) < len(silent_s) and 0.0 not in known else min(known)


def _silent_s(node: _Node, now_s: float) -> float | None:
    if node.status != "offline":
        return 0.0
    if node.last_heartbeat is None:
        return float("inf")
    try:
        at = datetime.fromisoformat(node.last_heartbeat)
    except ValueError:
        return None
    return max(0.0, now_s - at.timestamp()) if at.tzinfo else None
