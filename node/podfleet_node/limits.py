"""What the watchdog must know, read without a single third-party import. Used by the supervisor.

The same names and defaults as `podfleet_node.settings` (a test compares them). A value that makes no sense is replaced
by its default here: wrong settings must end a pod, not disarm its watchdog.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podfleet_node.selfstop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "PODFLEET_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of PID 1. 0 (or None) in a limit means: this rule is off."""

    wait_for_start: bool = False
    bootstrap_deadline_s: float = 900.0
    expires_at_s: float | None = None
    max_runtime_s: float = 43200.0
    max_consecutive_failures: int = 3
    drain_deadline_s: float = 180.0
    host_key_file: str = ""
    self_stop: tuple[StopRequest, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str], file_values: Mapping[str, Any]) -> Limits:
        """From the pod's variables and the settings file, which overrides them."""

        def value(name: str) -> Any:
            return file_values.get(name, environ.get(ENV_PREFIX + name.upper(), ""))

        return cls(
            wait_for_start=_truth(value("wait_for_start")),
            bootstrap_deadline_s=_number(value("bootstrap_deadline_s"), cls().bootstrap_deadline_s),
            expires_at_s=_number(value("expires_at_s"), 0.0) or None,
            max_runtime_s=_number(value("max_runtime_s"), cls().max_runtime_s),
            max_consecutive_failures=int(_number(value("max_consecutive_failures"), cls().max_consecutive_failures)),
            drain_deadline_s=_number(value("drain_deadline_s"), cls().drain_deadline_s),
            host_key_file=str(value("host_key_file") or ""),
            self_stop=_requests(value("self_stop")),
        )


def _number(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) and number >= 0 else default


def _truth(value: Any) -> bool:
    return value is True or str(value).strip().lower() in {"1", "true", "yes", "on", "y", "t"}


def _requests(value: Any) -> tuple[StopRequest, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except ValueError:
            return ()
    if not isinstance(value, list):
        return ()
    found = (StopRequest.parse(entry) for entry in value if isinstance(entry, dict))
    return tuple(request for request in found if request is not None)
