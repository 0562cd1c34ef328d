"""What a container runs and sees: command line, exact environment, secrets put in. Called by `containers`.

PURE.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localcloud.model import Pod, PodRequest

MAX_USER_VARIABLES = 50
_REFERENCE = re.compile(r"\{\{\s*RUNPOD_SECRET_([A-Za-z_][A-Za-z0-9_.\-/]*)\s*\}\}")
LANG = "C.UTF-8"
PUBLIC_IP = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class MissingSecret:
    """A variable refers to an account secret that does not exist."""

    variable: str
    secret: str


def command_line(request: PodRequest, image_command: Sequence[str]) -> list[str]:
    """ENTRYPOINT and CMD as Docker puts them together; `args` is a shell string (CMD) or JSON with both."""
    entrypoint, cmd = list(image_command[:1]), list(image_command[1:])
    if request.args is not None:
        entrypoint, cmd = _parse_args(request.args, entrypoint)
    if request.entrypoint is not None:
        entrypoint, cmd = list(request.entrypoint), []
    if request.cmd is not None:
        cmd = list(request.cmd)
    return entrypoint + cmd


def _parse_args(args: str, entrypoint: list[str]) -> tuple[list[str], list[str]]:
    try:
        parsed = json.loads(args)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return list(parsed.get("entrypoint") or entrypoint), list(parsed.get("cmd") or [])
    return entrypoint, shlex.split(args)


def base_env(root: str, path: str, image_env: Mapping[str, str]) -> dict[str, str]:
    """What every login and every process of the image has."""
    image = {key: value.replace("{root}", root) for key, value in image_env.items()}
    return {"PATH": path, "HOME": root, "LANG": LANG, **image}


def pod_env(pod: Pod, base: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | MissingSecret:
    """The whole environment of the pod's first process; what the user set wins."""
    request = pod.request
    env = {
        **base,
        "RUNPOD_POD_ID": pod.id,
        "RUNPOD_DC_ID": pod.data_center_id,
        "RUNPOD_POD_HOSTNAME": f"{pod.id}-localhost",
        "RUNPOD_GPU_COUNT": str(request.gpu.count if request.gpu else 0),
        "RUNPOD_CPU_COUNT": str(vcpu_count(request)),
        "RUNPOD_PUBLIC_IP": PUBLIC_IP,
        "RUNPOD_API_KEY": pod.api_key,
        "CUDA_VERSION": pod.cuda_version,
        "PYTORCH_VERSION": "",
    }
    for private, public in pod.tcp_ports.items():
        env[f"RUNPOD_TCP_PORT_{private}"] = str(public)
    for key, value in {**request.injected, **request.env}.items():
        resolved = _resolve(value, secrets)
        if isinstance(resolved, str):
            env[key] = resolved
        else:
            return MissingSecret(key, resolved[0])
    return env


def first_reference(request: PodRequest) -> MissingSecret:
    """The first account secret that a variable refers to; blanks when none does."""
    found = ((key, name) for key, value in request.env.items() for name in _REFERENCE.findall(value))
    return MissingSecret(*next(found, ("", "")))


def vcpu_count(request: PodRequest) -> int:
    """Virtual CPUs of the machine's share."""
    return request.cpu.vcpu_count if request.cpu else 6 * (request.gpu.count if request.gpu else 1)


def _resolve(value: str, secrets: Mapping[str, str]) -> str | tuple[str]:
    """The value with its references replaced, or (the name that is missing,)."""
    for name in _REFERENCE.findall(value):
        if name not in secrets:
            return (name,)
    return _REFERENCE.sub(lambda match: secrets[match.group(1)], value)
