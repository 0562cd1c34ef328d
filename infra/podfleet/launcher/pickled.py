"""From the text under `__provider` to a provider that is ready to work, and back for a resource that is to be imported.

The text is base64 of a pickled instance; for a class in an importable module that is its dotted path and nothing more.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Mapping
from typing import Any

import dill
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.metadata import get_project
from pulumi.runtime import Settings, configure
from pulumi.runtime._serialization import _deserialize, _serialize

from podfleet.errors import ConfigError
from podfleet.providers.runpod.pod import PodProvider

# What can be imported by id, by type: for those that can say all of a resource from its id
IMPORTABLE: Mapping[str, type[ResourceProvider]] = {"pulumi-python:dynamic/runpod:Pod": PodProvider}


class Providers:
    """One instance per text, configured once. Thread-safe."""

    def __init__(self) -> None:
        self._config: dict[str, Any] = {}
        self._made: dict[str, ResourceProvider] = {}
        self._lock = threading.Lock()  # unpickling in two threads at once is not safe

    def configure(self, config: dict[str, Any]) -> None:
        """The stack's config, as the engine sends it before anything else."""
        self._config = config

    def get(self, text: str) -> ResourceProvider:
        """The provider that this text stands for."""
        with self._lock:
            if text not in self._made:
                self._made[text] = self._make(text)
            return self._made[text]

    def _make(self, text: str) -> ResourceProvider:
        set_up_thread()
        provider: ResourceProvider = _deserialize(lambda: dill.loads(base64.b64decode(text)))  # noqa: S301  the state's
        provider.configure(ConfigureRequest(config=Config(self._config, get_project())))
        return provider

    def text_for(self, type_token: str) -> str:
        """The `__provider` of a resource that is in no state yet. ConfigError for a type that cannot be imported."""
        provider = IMPORTABLE.get(type_token)
        if provider is None:
            told = ", ".join(IMPORTABLE)
            raise ConfigError(f"{type_token} cannot be imported by its id; of podfleet's resources only {told}")
        with self._lock:
            text, _ = _serialize(True, serialize_provider, provider())
        return str(text)


def set_up_thread() -> None:
    """The SDK keeps its settings per context; a new thread has none, and providers may ask for the project's name."""
    project = os.environ.get("PULUMI_PROJECT", "project")
    configure(Settings(project=project, stack="stack", organization="organization"))
