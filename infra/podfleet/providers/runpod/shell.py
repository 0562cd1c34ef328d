"""What the dynamic providers share. They are shells: settings from the engine, everything else from the core.

The state stores their dotted paths, for ever: `podfleet.providers.runpod.pod.PodProvider`, `….guard.GuardProvider`,
`….sweep.SweepProvider`, `….reachable.PodReachableProvider`, `….secret.SecretProvider`, `….registry.RegistryProvider`,
`….volume.VolumeProvider`, `….holdings.HoldingsProvider`. After a move `destroy` fails on every one of them. The
instances are pickled into the state: an attribute set before `configure` would be stored with them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TypeAlias

import structlog
from pulumi.dynamic import ConfigureRequest, ResourceProvider
from pulumi.runtime.rpc import UNKNOWN

from podfleet.errors import PodfleetError
from podfleet.logs import quiet_repeats
from podfleet.providers.runpod.runtime import Runtime, runtime
from podfleet.providers.runpod.settings import ProviderSettings, read_settings

Props: TypeAlias = dict[str, Any]


class Shell(ResourceProvider):
    """Base of the providers: reads the settings once per process."""

    _settings: ProviderSettings

    def configure(self, req: ConfigureRequest) -> None:
        """Environment first, then stack config; fast, and no request."""
        _speak_plainly()
        self._settings = read_settings(os.environ, req.config.get)

    @property
    def core(self) -> Runtime:
        return runtime(self._settings)


def known(value: object) -> bool:
    """False for what the engine cannot know yet, in a preview."""
    return value is not None and value != UNKNOWN


def changed(olds: Props, news: Props, *keys: str) -> list[str]:
    """Those of `keys` whose old output differs from the new input."""
    return [key for key in keys if olds.get(key) != news.get(key)]


class _OneLine(logging.Filter):
    """gRPC logs a traceback for every error; ours are told in full by their one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, PodfleetError)


def _speak_plainly() -> None:
    """The engine shows this process's stderr: one plain line per event, no colours, no clock."""
    quiet_repeats()
    grpc_log = logging.getLogger("grpc._server")
    if not any(isinstance(each, _OneLine) for each in grpc_log.filters):
        grpc_log.addFilter(_OneLine())
    if not structlog.is_configured():
        structlog.configure(
            processors=[structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=False)],
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
