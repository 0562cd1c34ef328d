"""What the provider process needs to know, read once from the environment and the stack config.

The environment goes first: `destroy` and `refresh` see the config that is saved in the state, not today's, so a
rotated key must be able to come past it. Nothing here is a Pod input: a new budget touches no pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic.alias_generators import to_camel

from podfleet.config import NAMESPACE, STACK_VARIABLE, STATE_DIR_VARIABLE, PodfleetConfig
from podfleet.errors import KEY_VARIABLE, ConfigError
from podfleet.placement import Avoid, Rules
from podfleet.providers.runpod.census import Looks
from podfleet.providers.runpod.client import DEFAULT_URL, Access
from podfleet.providers.runpod.rules import AVOID_VARIABLE, read_avoid, read_rules
from podfleet.providers.runpod.spend_rules import SpendLimits

URL_VARIABLE = "RUNPOD_API_BASE_URL"
SSH_KEY_VARIABLE = "PODFLEET_SSH_PRIVATE_KEY"
GENERATION_VARIABLE = "PODFLEET_EXPECT_GENERATION"  # set by the reconciler for its own `up`, never in a shell
INTERRUPTED_VARIABLE = "PODFLEET_INTERRUPTED_AT_S"  # set by our own commands where they found a killed update; epoch
BOOT_DEADLINE_VARIABLE = "PODFLEET_BOOT_DEADLINE_S"  # set by `up --wait`, which replaces what is late
FLOOR = f"{NAMESPACE}:minCudaVersion"
DEFAULT_FLOOR = PodfleetConfig.model_fields["min_cuda_version"].default
SECONDS_PER_MINUTE = 60.0
LOOKS_PER_POLL = 10.0
MAX_MIN_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Frozen and hashable: one runtime per distinct settings. No repr shows a secret."""

    api_key: str = field(default="", repr=False)
    base_url: str = DEFAULT_URL
    ssh_private_key: str = field(default="", repr=False)
    absence_interval_s: float = 10.0
    poll_interval_s: float = 10.0
    reconcile_s: float = 60.0
    drain_deadline_s: float = 180.0
    max_runtime_s: float = 720 * SECONDS_PER_MINUTE
    expect_generation: str = ""
    uid: str = ""
    boot_deadline_s: float = 0.0  # 0: each wait has its own deadline
    min_cuda_version: str = ""
    limits: SpendLimits = field(default_factory=SpendLimits)
    state_dir: str = ""
    rules: Rules = field(default_factory=Rules)
    avoid: tuple[Avoid, ...] = ()
    create_rounds: int = 3
    create_round_wait_s: float = 15.0
    interrupted_at_s: float = 0.0  # epoch; 0: nobody was killed

    @property
    def access(self) -> Access:
        return Access(self.base_url, self.api_key)

    @property
    def looks(self) -> Looks:
        """Lists are at least a tenth of the poll interval apart, so that a short one makes a quick census."""
        gap_s = min(MAX_MIN_INTERVAL_S, self.poll_interval_s / LOOKS_PER_POLL)
        return Looks(self.absence_interval_s, self.poll_interval_s, gap_s)


def read_settings(environ: Mapping[str, str], config: Callable[[str], object]) -> ProviderSettings:
    """`config` answers full stack config keys (`podfleet:pollIntervalSeconds`) with text or None.

    Raises ConfigError naming every bad key. A missing API key is no error here: the first request says so.
    """
    problems: list[str] = []

    def text(key: str) -> str:
        value = config(f"{NAMESPACE}:{key}")
        return "" if value is None else str(value)

    def number(field: str, scale: float = 1.0) -> float:
        key = to_camel(field)
        raw = text(key)
        try:
            value = float(raw) if raw else float(PodfleetConfig.model_fields[field].default)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            problems.append(f"{NAMESPACE}:{key} must be a number that is not negative")
        return value * scale

    settings = ProviderSettings(
        api_key=environ.get(KEY_VARIABLE, "").strip(),  # a file's last line end is no part of it
        base_url=(environ.get(URL_VARIABLE) or text("runpodUrl") or DEFAULT_URL).rstrip("/"),
        ssh_private_key=environ.get(SSH_KEY_VARIABLE) or text("sshPrivateKey"),
        absence_interval_s=number("absence_interval_seconds"),
        poll_interval_s=number("poll_interval_seconds"),
        reconcile_s=number("reconcile_seconds"),
        drain_deadline_s=number("drain_deadline_seconds"),
        max_runtime_s=number("max_runtime_minutes", SECONDS_PER_MINUTE),
        expect_generation=environ.get(GENERATION_VARIABLE, ""),
        uid=text("uid"),
        limits=SpendLimits(
            max_pods=int(number("max_pods")),
            max_usd_per_hour=number("max_usd_per_hour"),
            max_usd_per_day=number("max_usd_per_day"),
        ),
        state_dir=environ.get(STATE_DIR_VARIABLE, ""),
        rules=read_rules(config, number),
        avoid=read_avoid(environ.get(AVOID_VARIABLE, "")),
        create_rounds=max(1, int(number("create_rounds"))),
        create_round_wait_s=number("create_round_wait_seconds"),
        boot_deadline_s=_seconds(environ.get(BOOT_DEADLINE_VARIABLE, "")),
        interrupted_at_s=_seconds(environ.get(INTERRUPTED_VARIABLE, "")),
        min_cuda_version=str(DEFAULT_FLOOR if (floor := config(FLOOR)) is None else floor),  # empty: any
    )
    if foreign := _foreign_shell(environ.get(STACK_VARIABLE, ""), settings.uid):
        problems.append(foreign)
    if not settings.base_url.startswith(("http://", "https://")):
        problems.append(f"{NAMESPACE}:runpodUrl must begin with http:// or https://")
    if problems:
        raise ConfigError("; ".join(problems))
    return settings


def _foreign_shell(owner: str, uid: str) -> str:
    """Why a shell with the environment of stack `owner` may not work for `uid`; empty where it may."""
    stack = uid.rsplit("-", 1)[0]
    if not owner or not uid or stack == owner:
        return ""
    return f'this shell has the environment of stack {owner}, not of {uid}: run eval "$(podfleet env {stack})"'


def _seconds(text: str) -> float:
    """Our own commands write it; what somebody else has put there is as good as nothing."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def access_from(environ: Mapping[str, str], base_url: str, uid: str) -> Access:
    """Where the API is and who we are, for callers outside the provider process, which have today's config.

    Raises ConfigError where the environment is that of another stack than `uid`'s, or has another URL than the config:
    a pod that is rented there would ask the config's URL to end it.
    """
    access = read_settings(environ, {f"{NAMESPACE}:runpodUrl": base_url, f"{NAMESPACE}:uid": uid}.get).access
    if access.base_url != base_url.rstrip("/"):
        again = f'run eval "$(podfleet env {uid.rsplit("-", 1)[0]})" or unset {URL_VARIABLE}'
        raise ConfigError(f"{NAMESPACE}:runpodUrl: is {base_url}, but this shell has {access.base_url}: {again}")
    return access
