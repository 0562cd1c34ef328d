"""Log events of the operator's side: on stderr, as lines for people or, with `--log-json`, as JSON."""

from __future__ import annotations

import sys
from typing import Any

import stamina.instrumentation
import structlog


def configure(*, as_json: bool) -> None:
    """Set up once, at the start of the command."""
    quiet_repeats()
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), renderer],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def quiet_repeats() -> None:
    """Requests that are repeated are not reported one by one: people see the last answer, in one line."""
    stamina.instrumentation.set_on_retry_hooks([])


def get_logger(name: str) -> Any:
    """A logger for events with fields."""
    return structlog.get_logger(name)
