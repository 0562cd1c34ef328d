"""Log events as JSON lines on stderr. Called by `server` when something is wrong; what went well is in `events`.

structlog costs 0.13 s of import, a sixth of the server's start: it is imported at the first event.
"""

import sys
from functools import cache
from typing import Any


def warn(event: str, **fields: object) -> None:
    """A caller's problem that an operator may want to see."""
    _log().warning(event, **fields)


def error(event: str, **fields: object) -> None:
    """Something that an operator has to look at."""
    _log().error(event, **fields)


@cache
def _log() -> Any:
    import structlog  # noqa: PLC0415

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return structlog.get_logger("podfleet_queue")
