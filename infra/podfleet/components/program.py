"""Where the program meets the engine: the stack's typed config, and errors as lines. Called by `infra/__main__.py`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi.runtime import config as engine_config

from podfleet.config import PodfleetConfig, parse
from podfleet.errors import PodfleetError
from podfleet.logs import quiet_repeats
from podfleet.podspec import name_prefix

REPORTED = 32  # exit status that tells the engine: failed, and the reason is already shown


@dataclass(frozen=True, slots=True)
class Stack:
    """What the components need to know of the stack that is being run."""

    project: str
    name: str
    config: PodfleetConfig

    @property
    def prefix(self) -> str:
        return name_prefix(self.project, self.name)


def load() -> Stack:
    """The stack's config, checked as a whole before anything is created. Raises ConfigError."""
    quiet_repeats()
    raw = dict(engine_config.CONFIG.get())
    return Stack(pulumi.get_project(), pulumi.get_stack(), parse(raw, stack=pulumi.get_stack()))


def report(error: PodfleetError) -> None:
    """Each problem as a line of its own, without a traceback."""
    for line in str(error).splitlines():
        pulumi.log.error(line)
