"""From a slot to the pod that fills it: remote name, spec, environment, node settings. Pure.

Called by the components, which turn a `PodSpec` into a Pod resource, and by the reconciler, which needs the names.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from podfleet_node.settings import NodeSettings, SelfStopRequest

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

HASH_CHARS = 8
SSH_PORT = "22/tcp"
TAILNET_KEY_VARIABLE = "PODFLEET_TAILNET_KEY"
SCRYPT_COST, SCRYPT_MEMORY = 2**15, 64 * 2**20  # about 0.1 s a guess


@dataclass(frozen=True, slots=True)
class Mount:
    """The network volume of a pod: where it is, what it is made of, where the pod finds it. Its size may grow."""

    data_center_id: str
    type: str
    path: str


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What makes one pod different from another; its hash is in the pod's name and environment."""

    image: str
    gpu_types: tuple[str, ...]
    cloud: str
    data_center_ids: tuple[str, ...]
    min_cuda_version: str
    disk_gb: int
    ports: tuple[str, ...]
    bootstrap: str
    mount: Mount | None = None


def pod_spec(config: PodfleetConfig) -> PodSpec:
    """The spec of every pod of this stack. With a volume, pods are where that is."""
    mount = Mount(config.volume_data_center_id, config.volume_type, config.volume_path) if config.volume_gb else None
    return PodSpec(
        mount=mount,
        image=config.image,
        gpu_types=config.gpu_types,
        cloud=config.cloud,
        data_center_ids=(mount.data_center_id,) if mount else config.data_center_ids,
        min_cuda_version=config.min_cuda_version,
        disk_gb=config.disk_gb,
        ports=(SSH_PORT,) if config.bootstrap == "image" else (),
        bootstrap=config.bootstrap,
    )


def spec_hash(uid: str, spec: PodSpec) -> str:
    """8 hex characters of the stack's uid and the spec; what is not used is not in it, so that old pods keep theirs."""
    fields = {key: value for key, value in asdict(spec).items() if not (key == "mount" and value is None)}
    return _short_hash(json.dumps([uid, fields], sort_keys=True))


def name_prefix(project: str, stack: str) -> str:
    """What the remote names of a stack's pods begin with."""
    return f"{project}-{stack}-"


def remote_name(prefix: str, slot: str, uid: str, spec: PodSpec) -> str:
    """`<project>-<stack>-<slot>-<hash>`: changes when, and only when, the pod has to be another one."""
    return f"{prefix}{slot}-{spec_hash(uid, spec)}"


def slot_of(name: str, prefix: str) -> str:
    """The slot in a remote name."""
    return name.removeprefix(prefix).rsplit("-", 1)[0]


def secret_name(project: str, stack: str, uid: str, purpose: str) -> str:
    """Fixed name of an account secret of ours, or of a network volume."""
    return f"{name_prefix(project, stack)}{purpose}-{_short_hash(uid)}"


def registry_name(project: str, stack: str, uid: str, *, username: str, password: str) -> str:
    """Name of a registry login. RunPod cannot change one, so another login has another name and both can be there.

    The end is a slow, salted hash: whoever reads names in the account learns nothing of the password.
    """
    login = json.dumps([username, password]).encode()
    end = hashlib.scrypt(login, salt=uid.encode(), n=SCRYPT_COST, r=8, p=1, maxmem=SCRYPT_MEMORY, dklen=HASH_CHARS // 2)
    return f"{secret_name(project, stack, uid, 'registry')}-{end.hex()}"


def is_account_name(name: str, *, prefix: str, uid: str) -> bool:
    """Whether a secret, registry login or volume is of this fleet: by the names that the two functions above give."""
    pattern = rf"{re.escape(prefix)}[a-z][a-z0-9]*-{_short_hash(uid)}(-[0-9a-f]{{{HASH_CHARS}}})?"
    return bool(uid) and bool(prefix) and bool(re.fullmatch(pattern, name))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def secret_reference(name: str) -> str:
    """How RunPod writes an account secret in an environment; replaced at container boot."""
    return "{{ RUNPOD_SECRET_" + name + " }}"


def work_settings(config: PodfleetConfig) -> dict[str, Any]:
    """The node's settings that may change under a running pod: sent by the `configure` step, or in the environment."""
    return {
        "server_url": config.queue_url,
        "engine": config.engine,
        "model": config.model,
        "stop_on_empty_queue": config.stop_on_empty_queue,
        "empty_queue_checks": config.empty_queue_checks,
        "empty_queue_wait_s": config.empty_queue_wait_seconds,
        "idle_timeout_s": config.idle_timeout_minutes * 60,
        "server_unreachable_s": config.server_unreachable_minutes * 60,
        "max_consecutive_failures": config.max_consecutive_failures,
        "keep_alive": config.keep_alive,
        "drain_deadline_s": config.drain_deadline_seconds,
        "metrics_port": config.metrics_port,
    }


def pod_environment(config: PodfleetConfig, *, slot: str, name: str, tailnet_secret: str = "") -> dict[str, str]:
    """The environment of one pod; secrets only as references. The provider adds the end of its life at the POST."""
    fields: dict[str, Any] = {
        "uid": config.uid,
        "spec_hash": name.rsplit("-", 1)[1],
        "slot": slot,
        "node_name": name,
        "max_runtime_s": config.max_runtime_minutes * 60,
        "self_stop": self_stop_requests(config.runpod_url),
        "model_cache": config.volume_path if config.volume_gb else "",
    }
    if config.bootstrap == "image":
        fields |= {"wait_for_start": True, "bootstrap_deadline_s": config.bootstrap_deadline_minutes * 60}
    else:
        fields |= work_settings(config)
    env = NodeSettings(**fields).to_env()
    if config.bootstrap == "image":
        env["PUBLIC_KEY"] = config.ssh_public_key
    if tailnet_secret:
        env[TAILNET_KEY_VARIABLE] = secret_reference(tailnet_secret)
    return env


def self_stop_requests(runpod_url: str) -> tuple[SelfStopRequest, ...]:
    """How a pod ends itself, in order of trial, with the key that RunPod gives each pod; the node fills the `${}`.

    None of the three is known to be let through for good: which key may do what changes, and GraphQL goes.
    """
    bearer = {"Authorization": "Bearer ${RUNPOD_API_KEY}"}
    mutation = 'mutation { podTerminate(input: { podId: "${RUNPOD_POD_ID}" }) }'
    return (
        SelfStopRequest(method="DELETE", url=f"{runpod_url}/v2/pods/${{RUNPOD_POD_ID}}", headers=bearer),
        SelfStopRequest(method="POST", url=f"{runpod_url}/graphql", headers=bearer, json_body={"query": mutation}),
        SelfStopRequest(argv=("runpodctl", "remove", "pod", "${RUNPOD_POD_ID}")),  # where the image has it
    )
