"""The node's settings, as one plain model. A door: the operator's side builds the model and sends `to_env()`.

Field `x` is the variable `PODFLEET_X`. A file written by `podfleet-node configure` overrides the variables. Only
`podfleet_node.cli` reads the environment; it passes a mapping in here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from podfleet_node.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "PODFLEET_"
KEY_IN_ARGUMENTS = re.compile(r"\$\{[A-Za-z0-9_]*(KEY|TOKEN|SECRET|PASSWORD)\}")


class SelfStopRequest(BaseModel):
    """One request that ends this pod: a URL to call, or `argv`, a command of the image.

    `${VAR}` is filled from the pod's environment. A key has no place in `argv`, where any process could read it: the
    command finds it in its environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = "DELETE"
    url: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    json_body: JsonValue = None
    argv: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.url) == bool(self.argv):
            raise ValueError("give either url or argv")
        if any(KEY_IN_ARGUMENTS.search(word) for word in self.argv):
            raise ValueError("argv: no key, token, secret or password may be in it")
        return self


class NodeSettings(BaseModel):
    """Everything that a node can be told. In a limit, 0 means: this rule is off.

    `model_cache` is the folder in which engines keep fetched models (a network volume); empty: the image's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str = "/"
    uid: str = ""
    spec_hash: str = ""
    slot: str = ""
    node_name: str = ""

    wait_for_start: bool = False
    bootstrap_deadline_s: float = Field(900, ge=0)
    expires_at_s: float | None = Field(None, ge=0)
    max_runtime_s: float = Field(43200, ge=0)
    self_stop: tuple[SelfStopRequest, ...] = ()

    server_url: str = ""
    http_proxy: str = ""
    engine: str = "parakeet"
    model: str = ""
    model_cache: str = ""
    language: str = ""

    poll_s: float = Field(5, gt=0)
    heartbeat_s: float = Field(30, gt=0)
    prefetch_jobs: int = Field(3, ge=0)
    prefetch_audio_s: float = Field(60, ge=0)

    stop_on_empty_queue: bool = True
    empty_queue_checks: int = Field(2, ge=0)
    empty_queue_wait_s: float = Field(60, ge=0)
    idle_timeout_s: float = Field(600, ge=0)
    server_unreachable_s: float = Field(300, ge=0)
    max_consecutive_failures: int = Field(3, ge=0)
    keep_alive: bool = False
    drain_deadline_s: float = Field(180, ge=0)

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535)
    host_key_file: str = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings from variables alone; a variable with our prefix that is no setting is left to others."""
        return cls.merged(environ, {})

    @classmethod
    def merged(cls, environ: Mapping[str, str], file_values: Mapping[str, Any]) -> Self:
        """Variables, overridden by the values of the settings file. Raises SettingsError, naming every wrong field."""
        return cls.checked({**_from_variables(cls, environ), **file_values})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Validate; the error names every wrong field and repeats no value, because a value may be secret."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as err:
            problems = err.errors(include_input=False, include_url=False, include_context=False)
            raise SettingsError("; ".join(f"{_dotted(p['loc'])}: {p['msg']}" for p in problems)) from None

    def to_env(self) -> dict[str, str]:
        """Variables for all fields that differ from their default; `from_env(to_env())` gives the same settings."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return {ENV_PREFIX + name.upper(): _as_text(value) for name, value in fields.items()}


def _from_variables(model: type[NodeSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        text = environ.get(ENV_PREFIX + name.upper())
        if text is None or (text == "" and field.annotation is not str):
            continue
        found[name] = _as_json(text) if name == "self_stop" else text
    return found


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise SettingsError("self_stop: not JSON") from None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
