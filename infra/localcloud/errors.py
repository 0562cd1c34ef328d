"""Exceptions of localcloud; the command line and both APIs turn them into one line, or one answer.

LocalcloudError                 exit code 2, one line for a person
├ FactsError                    a facts file that cannot be used
├ StartError                    the daemon cannot start
│ ├ AlreadyRunning              another daemon owns the directory
│ └ PortInUse                   somebody listens on the port
├ NotRunning                    a command needs a running daemon
├ BadFault                      a fault that the daemon does not know
├ Problem                       an answer of the RunPod API (application/problem+json)
└ Refusal                       an answer of the Tailscale API ({"message"})
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus


class LocalcloudError(Exception):
    """What a person can act upon; `exit_code` is the command's."""

    exit_code = 2


class FactsError(LocalcloudError):
    """A facts file with an unknown key or a wrong value."""


class StartError(LocalcloudError):
    """The daemon cannot start."""


class AlreadyRunning(StartError):
    """Another daemon holds the directory's lock."""


class PortInUse(StartError):
    """The address is taken."""


class NotRunning(LocalcloudError):
    """No daemon in this directory."""


class BadFault(LocalcloudError):
    """A kind, an option or an id that is none."""


class Problem(LocalcloudError):
    """An error answer of the RunPod API, as RFC 9457 has it."""

    def __init__(
        self, status: int, detail: str, *, errors: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The JSON object of the answer."""
        body: dict[str, object] = {"title": title(self.status), "status": self.status, "detail": self.detail}
        return {**body, "errors": list(self.errors)} if self.errors else body


class Refusal(LocalcloudError):
    """An error answer of the Tailscale API."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def title(status: int) -> str:
    """The reason phrase of a status, also for numbers that HTTP does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
