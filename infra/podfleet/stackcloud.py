"""A stack's cloud for those who are no children of an engine: `healing` and `sweeping`.

The same parts as in a provider process, made from the stack's file and the environment of a command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from podfleet.config import NAMESPACE, PodfleetConfig
from podfleet.errors import EngineError
from podfleet.providers.runpod.client import RunpodClient
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import SSH_KEY_VARIABLE, access_from, read_settings
from podfleet.workspace import HIDDEN, PRIVATE_KEY, Workspace, run_engine


@contextmanager
def stack_cloud(
    workspace: Workspace, config: PodfleetConfig, env: Mapping[str, str], *, clock: Clock
) -> Iterator[Runtime]:
    """`env` is the stack's complete environment. Raises ConfigError where it is another stack's."""
    access_from(env, config.runpod_url, config.uid)  # its checks: whose shell, which URL
    raw = workspace.raw_config()
    settings = read_settings({**env, SSH_KEY_VARIABLE: _ssh_key(workspace, env)}, lambda key: _as_text(raw.get(key)))
    client = RunpodClient(settings.access, clock=clock)
    try:
        yield build(settings, client, NoEngine(), clock)
    finally:
        client.close()


def _ssh_key(workspace: Workspace, env: Mapping[str, str]) -> str:
    """For the drain; it is encrypted in the stack's file, so without an engine or the passphrase there is none."""
    if key := env.get(SSH_KEY_VARIABLE):
        return key
    try:
        done = run_engine(workspace, env, "config", "get", f"{NAMESPACE}:{PRIVATE_KEY}", check=False)
    except EngineError:
        return ""
    return "" if done.returncode else done.stdout


def _as_text(value: Any) -> str | None:
    """As the engine hands it to a provider: text, or JSON; a secret that is not in the environment is not had."""
    if value is None or value == HIDDEN:
        return None
    return value if isinstance(value, str) else json.dumps(value)
