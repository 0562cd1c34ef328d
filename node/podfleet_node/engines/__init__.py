"""The table of engines. A new engine is one file and one line here; nothing is imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podfleet_node.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podfleet_node.engines.base import Engine


def _pocketsphinx(model: str) -> Engine:
    from podfleet_node.engines.pocketsphinx import PocketsphinxEngine  # noqa: PLC0415 - lazy by intent

    return PocketsphinxEngine(model)


def _scripted(model: str) -> Engine:
    from podfleet_node.engines.scripted import ScriptedEngine  # noqa: PLC0415 - lazy by intent

    return ScriptedEngine(model)


ENGINES: dict[str, Callable[[str], Engine]] = {
    "pocketsphinx": _pocketsphinx,
    "scripted": _scripted,
}


def load(name: str, model: str) -> Engine:
    """The engine with its model loaded; `model` is the setting, "" means the engine's own."""
    if name not in ENGINES:
        raise SettingsError(f"engine: unknown engine {name!r}; this pod has {', '.join(sorted(ENGINES))}")
    return ENGINES[name](model)
