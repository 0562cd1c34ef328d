"""Exceptions of the set-up steps.

SetupError
├── Unreachable     no registry answers; names the variables that decide where it is looked for
└── WrongContent    what was downloaded is not what the lock file says
"""


class SetupError(Exception):
    """Set-up cannot go on; the message is the one line that the user reads."""

    exit_code = 2


class Unreachable(SetupError):
    """A package registry does not answer."""


class WrongContent(SetupError):
    """A download whose hash differs from the pinned one; it was not used."""
