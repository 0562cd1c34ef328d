"""The stack's configuration: every key, its type, its limits, what a change does to a pod.

Read by the Pulumi program, by the command line and by `configdocs`, which prints `docs/config.md` from this model.
Values arrive as Pulumi stores them (strings; JSON for lists) and are checked as a whole: all problems at once, each
naming its key.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from podfleet.errors import ConfigError
from podfleet.urls import is_url

NAMESPACE = "podfleet"
SLOT_PATTERN = re.compile(r"^slot-\d{2,3}$")
UID_PATTERN = r"^[A-Za-z0-9._-]+-[0-9a-f]{8}$"
STACK_VARIABLE = "PODFLEET_STACK"  # whose environment a shell has
SECRET_KEYS = frozenset({"sshPrivateKey"})

Bootstrap = Literal["image", "none"]
Cloud = Literal["SECURE", "COMMUNITY"]
AclMode = Literal["none", "own"]
Effect = Literal["replace", "update", "nothing", "new pods"]


def _key(description: str, effect: Effect = "nothing", seed: str = "", **field: Any) -> Any:
    """A config key: what it means, what a change does to a running pod, and the name that the seeds had for it."""
    return Field(description=description, json_schema_extra={"effect": effect, "seed": seed}, **field)


class PodfleetConfig(BaseModel):
    """One stack's wishes. Field names here, camelCase keys in the stack file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=to_camel)

    # Identity and operator's side
    uid: str = _key(
        "Identity of this fleet, `<stack>-<8 hex>`; made once by `podfleet env`, never copied to another stack",
        "replace",
        pattern=UID_PATTERN,
    )
    ssh_public_key: str = _key("Public half of the stack's SSH key; made by `podfleet env`", "new pods", default="")
    ssh_private_key: str = _key("Private half, a secret; made by `podfleet env`", default="", repr=False)
    pulumi_home: str = _key("Pulumi's home for this stack, relative to the project; empty: your own", default="")
    backend_url: str = _key(
        "Where the state is kept; `file://` paths may be relative to the project; empty: your Pulumi login", default=""
    )
    credentials_file: str = _key("File of `NAME=value` lines that `podfleet env` exports", default="")

    # Size
    pods: int = _key("How many pods are wanted", seed="runpod_max_pods", default=0, ge=0, le=200)
    slots: tuple[str, ...] = _key(
        "Named slots, kept by the reconciler; where it disagrees with `pods`, `pods` wins", default=()
    )
    min_pods: int = _key("The reconciler never goes below", default=0, ge=0, le=200)
    max_pods: int = _key("No more pods than this, whoever asks", seed="runpod_max_pods", default=3, ge=0, le=200)
    jobs_per_pod: int = _key(
        "One pod for so many jobs waiting or running", seed="runpod_scale_threshold", default=4, ge=1
    )
    enabled: bool = _key(
        "`false` holds the size: the reconciler changes nothing", seed="runpod_auto_scale", default=True
    )
    decision: str = _key("The reconciler's last decision, in one sentence", default="")

    # What a pod is
    image: str = _key("Image of the pods, pinned by tag or digest", "replace", seed="RUNPOD_IMAGE", min_length=1)
    gpu_types: tuple[str, ...] = _key(
        "GPU types by RunPod's exact ids, first choice first", "replace", seed="RUNPOD_GPU_TYPE", min_length=1
    )
    cloud: Cloud = _key("RunPod's secure or community cloud", "replace", default="SECURE")
    data_center_ids: tuple[str, ...] = _key("Only these data centres; empty: any", "replace", default=())
    min_cuda_version: str = _key(
        "Hosts at or above this CUDA version, `major.minor`; empty: any",
        "replace",
        seed="RUNPOD_BLOCKED_GPUS",
        default="12.8",
        pattern=r"^(\d+\.\d+)?$",
    )
    disk_gb: int = _key("Container disk, wiped on restart", "replace", default=20, ge=1, le=2000)
    bootstrap: Bootstrap = _key(
        "`image`: steps over SSH configure and start the baked node; `none`: it starts itself, no inbound SSH",
        "replace",
        seed="AFTERBURNER_MODE",
        default="image",
    )
    runpod_url: str = _key("RunPod's API", default="https://api.runpod.io", pattern=r"^https?://")
    absence_interval_seconds: float = _key(
        "A pod is gone when two complete lists so far apart lack it", default=10, ge=0, le=120
    )
    reconcile_seconds: float = _key(
        "After a lost answer to a create: how long to look for the pod before asking again", default=60, ge=0, le=600
    )
    poll_interval_seconds: float = _key(
        "One list of all pods per so many seconds while waiting", default=10, ge=0.1, le=120
    )
    reachable_deadline_minutes: float = _key("How long a new pod may take until SSH answers", default=20, gt=0)
    adopt: bool = _key("Take over live pods of this uid that the state does not know", default=False)

    # Network
    tailnet: str = _key("Tailnet the pods belong to, `-` for the one of your key; empty: none", default="")
    tailscale_url: str = _key("Tailscale's API", default="https://api.tailscale.com", pattern=r"^https?://")
    acl: AclMode = _key("`none`: print the policy snippet; `own`: this stack owns the whole policy", default="none")
    join: bool = _key("Run the tailnet step on the pods", "update", default=False)
    tailnet_key_expiry_hours: int = _key("Life of the tailnet key", default=24, ge=1, le=2160)
    server_port: int = _key("Port of the transcription server in the policy", default=8000, ge=1, le=65535)

    # Work
    queue_url: str = _key(
        "The transcription server, as the pods reach it", "update", seed="CAST2MD_SERVER_URL", pattern=r"^https?://"
    )
    engine: str = _key(
        "Recogniser: a name in the node's engine table", "update", seed="backend", default="pocketsphinx"
    )
    model: str = _key("Model of the engine; empty: its default", "update", seed="WHISPER_MODEL", default="")
    max_runtime_minutes: float = _key(
        "Absolute lifetime of a pod, written into it at create; holds in every mode",
        "new pods",
        seed="AFTERBURNER_MAX_RUNTIME",
        default=720,
        gt=0,
    )
    bootstrap_deadline_minutes: float = _key(
        "A pod that waits longer for its `start` step ends itself", "new pods", default=15, gt=0
    )
    stop_on_empty_queue: bool = _key("A pod ends itself when the queue stays empty", "update", default=True)
    empty_queue_checks: int = _key(
        "Empty answers in a row that count as empty", "update", seed="NODE_REQUIRED_EMPTY_CHECKS", default=2, ge=1
    )
    empty_queue_wait_seconds: float = _key(
        "Pause between them", "update", seed="NODE_EMPTY_QUEUE_WAIT", default=60, ge=0
    )
    idle_timeout_minutes: float = _key(
        "A pod without a job ends itself; 0: never", "update", seed="NODE_IDLE_TIMEOUT_MINUTES", default=10, ge=0
    )
    server_unreachable_minutes: float = _key(
        "A pod that cannot reach the server ends itself; 0: never",
        "update",
        seed="NODE_SERVER_UNREACHABLE_MINUTES",
        default=5,
        ge=0,
    )
    max_consecutive_failures: int = _key(
        "So many failed jobs in a row end the pod; 0: never",
        "update",
        seed="NODE_MAX_CONSECUTIVE_FAILURES",
        default=3,
        ge=0,
    )
    keep_alive: bool = _key(
        "Switch these rules off, never the lifetime", "update", seed="NODE_PERSISTENT", default=False
    )
    drain_deadline_seconds: float = _key(
        "How long a pod may finish its job before it is ended", "update", default=180, ge=0
    )
    metrics_port: int = _key("Port of the node's metrics; 0: any free one", "update", default=9464, ge=0, le=65535)

    @field_validator("slots", "gpu_types", "data_center_ids", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('has to be a list such as ["a", "b"]') from None

    @field_validator("runpod_url", "tailscale_url", "queue_url")
    @classmethod
    def _url(cls, url: str) -> str:
        if not is_url(url):
            raise ValueError("has to be a URL such as https://host or http://host:8000")
        return url

    @field_validator("slots")
    @classmethod
    def _slot_names(cls, slots: tuple[str, ...]) -> tuple[str, ...]:
        bad = [slot for slot in slots if not SLOT_PATTERN.match(slot)]
        if bad or len(set(slots)) != len(slots):
            raise ValueError("names like slot-01, each once")
        return slots

    @property
    def wanted_slots(self) -> tuple[str, ...]:
        """The slots that are to exist: `slots`, corrected to `pods` where the two disagree (`pods` wins)."""
        return slots_for(self.pods, self.slots)


def slots_for(pods: int, slots: Sequence[str]) -> tuple[str, ...]:
    """`pods` slot names: those given first; more take the lowest free numbers, fewer go from the end."""
    kept = list(slots[:pods])
    number = 1
    while len(kept) < pods:
        name = f"slot-{number:02d}"
        if name not in kept:
            kept.append(name)
        number += 1
    return tuple(sorted(kept))


def keys() -> tuple[str, ...]:
    """All keys, camelCase, without the namespace."""
    return tuple(to_camel(name) for name in PodfleetConfig.model_fields)


def parse(raw: Mapping[str, Any], *, stack: str) -> PodfleetConfig:
    """Check a stack's `podfleet:*` values as a whole.

    `raw` maps keys with or without the namespace to values as Pulumi gives them; other namespaces are left alone.
    Raises ConfigError with one line per problem.
    """
    values = {_bare(key): value for key, value in raw.items() if _is_ours(key)}
    problems = [_unknown(key) for key in values if key not in keys()]
    known = {key: value for key, value in values.items() if key in keys()}
    try:
        config = PodfleetConfig.model_validate(known)
    except ValidationError as error:
        problems += [_line(detail, known) for detail in error.errors()]
        raise ConfigError(problems) from None
    problems += _across(config, stack)
    if problems:
        raise ConfigError(problems)
    return config


def uid_problem(uid: str, stack: str) -> str:
    """Why this uid is not the stack's own; empty where it is. A copied stack file must not end another fleet."""
    if uid.rsplit("-", 1)[0] == stack:
        return ""
    copied = f"{uid!r} is not of stack {stack!r} (was its file copied?)"
    return f"{NAMESPACE}:uid: {copied}; remove it from this stack's file, then run `podfleet env {stack}`"


def _is_ours(key: str) -> bool:
    return ":" not in key or key.startswith(f"{NAMESPACE}:")


def _bare(key: str) -> str:
    return key.removeprefix(f"{NAMESPACE}:")


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, keys(), n=1)
    hint = f"did you mean {NAMESPACE}:{close[0]}?" if close else "docs/config.md lists the keys"
    return f"{NAMESPACE}:{key}: no such key; {hint}"


def _line(detail: Any, values: Mapping[str, Any]) -> str:
    key = to_camel(str(detail["loc"][0])) if detail["loc"] else "?"
    if detail["type"] == "missing":
        hint = " (run `podfleet env STACK`, which makes it)" if key == "uid" else ""
        return f"{NAMESPACE}:{key}: is not set{hint}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    shown = "" if key in SECRET_KEYS else f", not {values.get(key)!r}"
    return f"{NAMESPACE}:{key}: {message[:1].lower()}{message[1:]}{shown}"


def _across(config: PodfleetConfig, stack: str) -> list[str]:
    """What no single key can say."""
    checks = (
        (config.pods > config.max_pods, f"pods: {config.pods} is more than podfleet:maxPods ({config.max_pods})"),
        (
            config.min_pods > config.max_pods,
            f"minPods: {config.min_pods} is more than podfleet:maxPods ({config.max_pods})",
        ),
        (
            config.bootstrap == "image" and not (config.ssh_public_key and config.ssh_private_key),
            "sshPublicKey, podfleet:sshPrivateKey: mode `image` needs the key pair that `podfleet env` makes",
        ),
        (config.join and not config.tailnet, "join: needs podfleet:tailnet"),
    )
    problems = [f"{NAMESPACE}:{text}" for wrong, text in checks if wrong]
    copied = uid_problem(config.uid, stack)
    return [copied, *problems] if copied else problems
