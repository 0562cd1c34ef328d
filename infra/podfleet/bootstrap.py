"""Bootstrap steps as data. Pure: rendered here, run by the components over SSH, printable as a script.

To change what happens on a pod, change `steps`. Secrets travel on stdin only.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podfleet.podspec import TAILNET_KEY_VARIABLE, work_settings

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig

# SSH logins do not inherit the container's environment: the key is read from PID 1, goes through a file that only
# root can read, and never stands in an argument. RunPod's pods have no tun device, hence userspace networking.
JOIN = f"""set -eu
umask 077
trap 'rm -f /run/tailnet-key' EXIT
mkdir -p /var/run/tailscale
if tailscale status >/dev/null 2>&1; then exit 0; fi
pgrep -x tailscaled >/dev/null || setsid tailscaled --tun=userspace-networking --state=mem: \\
  --outbound-http-proxy-listen=127.0.0.1:1055 >/var/log/tailscaled.log 2>&1 </dev/null &
tr '\\0' '\\n' </proc/1/environ | sed -n 's/^{TAILNET_KEY_VARIABLE}=//p' >/run/tailnet-key
tailscale up --auth-key=file:/run/tailnet-key --hostname="$1" --timeout=60s"""
JOIN_PROXY = "http://127.0.0.1:1055"


@dataclass(frozen=True, slots=True)
class Step:
    """One command on a pod. It has to be idempotent: a changed connection or stdin runs it again."""

    name: str
    run: str
    timeout_s: float
    stdin: str = ""


def steps(config: PodfleetConfig, *, name: str) -> tuple[Step, ...]:
    """The steps of one pod, in order; none in mode `none`, where the image starts itself."""
    if config.bootstrap == "none":
        return ()
    settings = work_settings(config)
    if config.join:
        settings["http_proxy"] = JOIN_PROXY
    join = (Step("join", f"sh -c {shlex.quote(JOIN)} join {shlex.quote(name)}", timeout_s=120),)
    return (
        Step("verify", f"podfleet-node check --engine {shlex.quote(config.engine)}", timeout_s=60),
        *(join if config.join else ()),
        Step("configure", "podfleet-node configure", timeout_s=60, stdin=json.dumps(settings, sort_keys=True)),
        Step("start", "podfleet-node start", timeout_s=60),
    )


def script(config: PodfleetConfig, *, name: str) -> str:
    """The same steps as one shell script, for reading or for a hand-made host; stdin becomes a here-document."""
    parts = ["#!/bin/sh", "set -eu"]
    for step in steps(config, name=name):
        parts.append(f"# {step.name}")
        parts.append(f"{step.run} <<'STDIN'\n{step.stdin}\nSTDIN" if step.stdin else step.run)
    return "\n".join(parts) + "\n"
