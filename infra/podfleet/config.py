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
MIN_VOLUME_GB = 10
UID_PATTERN = r"^[A-Za-z0-9._-]+-[0-9a-f]{8}$"
STACK_VARIABLE = "PODFLEET_STACK"  # whose environment a shell has
STATE_DIR_VARIABLE = "PODFLEET_STATE_DIR"  # the checkout's folder, where its processes share what they reserve
SECRET_KEYS = frozenset({"sshPrivateKey", "registryPassword"})

Bootstrap = Literal["image", "none"]
Cloud = Literal["SECURE", "COMMUNITY", "ALL"]
GpuOrder = Literal["price", "listed"]
Capacity = Literal["on-demand", "spot-if-offered"]
VolumeType = Literal["STANDARD", "HIGH_PERFORMANCE"]
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
        "Only these GPU types, by RunPod's exact ids; empty: any that fits",
        "replace",
        seed="RUNPOD_GPU_TYPE",
        default=(),
    )
    cloud: Cloud = _key("RunPod's secure or community cloud, or both", "replace", default="SECURE")
    data_center_ids: tuple[str, ...] = _key("Only these data centres; empty: any", "replace", default=())
    min_cuda_version: str = _key(
        "Hosts at or above this CUDA version, `major.minor`; empty: any",
        "replace",
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
    volume_gb: int = _key("Network volume for models; 0: none", "replace", default=0, ge=0, le=4096)
    volume_path: str = _key("Where the pods find it", "replace", default="/models", pattern=r"^/[A-Za-z0-9._/-]+$")
    volume_data_center_id: str = _key("Where it is; the pods are rented there, too", "replace", default="")
    volume_type: VolumeType = _key("Its kind of storage", "replace", default="STANDARD")
    registry_username: str = _key("Login for a private image registry; empty: the image is public", default="")
    registry_password: str = _key("Its password, a secret", default="", repr=False)

    # Which machine, and for how much: no change of these touches a running pod
    gpu_order: GpuOrder = _key(
        "`price`: least dollars per hour of audio first; `listed`: the order of `gpuTypes`", "new pods", default="price"
    )
    gpu_speeds: dict[str, float] = _key(
        "Measured speeds, GPU id → seconds of audio per second; they replace the built-in table",
        "new pods",
        default_factory=dict,
    )
    blocked_gpu_types: tuple[str, ...] = _key(
        "Never these GPU types, by exact id", "new pods", seed="RUNPOD_BLOCKED_GPUS", default=()
    )
    min_vram_gb: float = _key("GPU memory that a pod needs; 0: what its model needs", "new pods", default=0, ge=0)
    max_usd_per_pod_hour: float = _key("No pod dearer than this; 0: no limit", "new pods", default=0, ge=0)
    capacity: Capacity = _key(
        "`spot-if-offered` takes spot pods where there are any, else on-demand ones", "new pods", default="on-demand"
    )
    create_rounds: int = _key(
        "How often all candidates are tried before `up` gives up on a slot", default=3, ge=1, le=20
    )
    create_round_wait_seconds: float = _key("Pause between two rounds, give or take a half", default=15, ge=0, le=600)

    # Fuses
    max_usd_per_hour: float = _key("No POST that would make the fleet dearer; 0: no limit", default=5, ge=0)
    max_usd_per_day: float = _key(
        "No POST once the last 24 hours, and the next hour with this pod, cost more; 0: no limit", default=50, ge=0
    )
    low_balance_hours: float = _key("Warn when the balance lasts for fewer hours; 0: never", default=6, ge=0)
    sweep_min_age_minutes: float = _key("`podfleet sweep` leaves younger pods alone", default=15, ge=0)
    sweep_looks_apart_minutes: float = _key("Time between its two looks", default=3, ge=0, le=60)
    heartbeat_silence_minutes: float = _key(
        "A pod whose node has been silent for so long may be an orphan", default=10, gt=0
    )
    image_gb: float = _key("Size of the image: how long a pull may take", default=8, gt=0, le=200)
    replacements: int = _key("`podfleet up --wait`: so many failed pods may be replaced", default=3, ge=0, le=50)
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
        "Absolute lifetime of a pod, written into it at create; holds in every mode; 0, by hand only: none",
        "new pods",
        seed="AFTERBURNER_MAX_RUNTIME",
        default=720,
        ge=0,
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

    @field_validator("slots", "gpu_types", "data_center_ids", "blocked_gpu_types", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return _parsed(value, 'a list such as ["a", "b"]')

    @field_validator("gpu_speeds", mode="before")
    @classmethod
    def _object(cls, value: Any) -> Any:
        return _parsed(value, 'an object such as {"NVIDIA L4": 60}')

    @field_validator("gpu_speeds")
    @classmethod
    def _speeds(cls, speeds: dict[str, float]) -> dict[str, float]:
        if any(speed <= 0 for speed in speeds.values()):
            raise ValueError("speeds above 0")
        return speeds

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


def _parsed(value: Any, example: str) -> Any:
    """Lists and objects are JSON text in a stack file that `pulumi config set` wrote."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"has to be {example}") from None


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
        (
            bool(config.registry_username) != bool(config.registry_password),
            "registryUsername, podfleet:registryPassword: set both, or none",
        ),
        (
            0 < config.volume_gb < MIN_VOLUME_GB,
            f"volumeGb: {config.volume_gb} is less than RunPod makes ({MIN_VOLUME_GB})",
        ),
        (
            config.volume_gb > 0 and not config.volume_data_center_id,
            "volumeGb: needs podfleet:volumeDataCenterId, a volume stays where it is made",
        ),
        (
            config.volume_gb > 0
            and bool(config.data_center_ids)
            and config.volume_data_center_id not in config.data_center_ids,
            "volumeDataCenterId: is not among podfleet:dataCenterIds, where the pods are",
        ),
        (
            config.gpu_order == "listed" and not config.gpu_types,
            "gpuOrder: `listed` needs podfleet:gpuTypes",
        ),
        (
            bool(set(config.gpu_types)) and set(config.gpu_types) <= set(config.blocked_gpu_types),
            "blockedGpuTypes: blocks all of podfleet:gpuTypes",
        ),
    )
    problems = [f"{NAMESPACE}:{text}" for wrong, text in checks if wrong]
    copied = uid_problem(config.uid, stack)
    return [copied, *problems] if copied else problems
