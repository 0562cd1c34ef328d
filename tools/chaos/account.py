"""An emulator with an account of its own, used by a few points one after another and then left to rest.

After a point its pods stay for `rest_s`, since a late pod is an orphan, too; only then is the account looked at again
and emptied for the next points. Used by the runner's workers.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from localcloud.testing import RunningCloud, running

POINTS_PER_ACCOUNT = 10
PRINTS_ITS_KEY = 'echo "podfleet-node host-key $(cat $PODFLEET_ROOT/etc/ssh/ssh_host_ed25519_key.pub)"; exec sleep 3600'
FACTS: dict[str, Any] = {
    "pod_command": ["sh", "-c", PRINTS_ITS_KEY],
    "boot_s": 0.05,
    "ssh_s": 0.0,
    "grace_s": 0.5,
    "spot_grace_s": 0.1,
    "restart_backoff_s": 0.1,
    "balance_usd": 1000.0,
    "stock_default": 1000,
    "rate_limit_per_minute": 1_000_000,
    "rate_limit_per_hour": 10_000_000,
    "rate_limit_per_day": 100_000_000,
}
HELD = {"/v2/account/secrets": "secrets", "/v2/registries": "registries", "/v2/network-volumes": "networkVolumes"}
FOREIGN_UID = "other-0badcafe"


@dataclass
class Account:
    """`cloud` is open between `open` and `close`. `kept`: the account outlives a kill of its emulator."""

    folder: Path
    kept: bool = False
    foreign: set[str] = field(default_factory=set)
    used: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _cloud: RunningCloud | None = None

    @property
    def cloud(self) -> RunningCloud:
        if self._cloud is None:
            raise RuntimeError("the account is not open")
        return self._cloud

    def open(self, **ports: int) -> None:
        """Start the emulator."""
        facts = {**FACTS, "state": "kept"} if self.kept else FACTS
        self._cloud = self._stack.enter_context(running(self.folder, **ports, **facts))

    def close(self) -> None:
        """End it and its pods."""
        self._stack.close()
        self._cloud = None

    def restart(self) -> None:
        """After its death: the same addresses, keys and pods."""
        ports = {f"{name}_port": urlsplit(url).port or 0 for name, url in self._urls()}
        self._stack.close()
        self.open(**ports)

    def died(self) -> bool:
        """Whether the emulator's process is dead; it is not reaped."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.cloud.pid, options) is not None

    def clear(self) -> None:
        """Empty, for the next points."""
        self.cloud.reset()
        self.foreign.clear()
        self.used = 0

    def plant(self, name: str, uid: str) -> str:
        """A pod of somebody else; its id. It has to be there at the end of all points of this account."""
        env = {"PODFLEET_UID": uid, "PODFLEET_SPEC_HASH": name.rsplit("-", 1)[1]}
        body = {"name": name, "image": "chaos/other", "gpu": {"id": "NVIDIA A40"}, "disk": 5, "env": env}
        with self.cloud.client() as client:
            made = client.post("/v2/pods", json=body).raise_for_status().json()
        self.foreign.add(str(made["id"]))
        return str(made["id"])

    def held(self) -> list[str]:
        """Names of the account's secrets, registry logins and volumes."""
        with self.cloud.client() as client:
            found = [client.get(path).raise_for_status().json()[key] for path, key in HELD.items()]
        return [str(each["name"]) for kind in found for each in kind]

    def _urls(self) -> Iterator[tuple[str, str]]:
        yield "runpod", self.cloud.runpod_url
        yield "tailscale", self.cloud.tailscale_url


def wait_for(condition: Callable[[], bool], limit_s: float, step_s: float = 0.01) -> bool:
    """Whether it came true in time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(step_s)
    return True


def answers(cloud: RunningCloud) -> bool:
    """Whether the emulator's control routes answer."""
    try:
        cloud.events(since=cloud.last_seq())
    except (httpx.HTTPError, ValueError):
        return False
    return True
