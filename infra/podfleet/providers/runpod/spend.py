"""The spend guard: no POST that would make the fleet bigger or dearer than the stack's limits.

`PodCore` reserves just before each POST and settles when its outcome is known.
"""

from __future__ import annotations

from typing import Protocol


class Spends(Protocol):
    """What `PodCore` needs of a spend guard."""

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        """Checked and reserved under one lock. Raises SpendLimit: then nothing is reserved, and no POST may follow."""

    def settle(self, name: str, pod_id: str | None) -> None:
        """The POST's outcome: the pod's id; None where no pod came of it. Not called while nobody knows."""


class NoSpend:
    """No limits: for tests, and for callers that rent nothing."""

    def reserve(self, *, name: str, uid: str, usd_per_hr: float) -> None:
        """Let all pass."""

    def settle(self, name: str, pod_id: str | None) -> None:
        """Nothing was reserved."""
