"""A stage with a stack on it, kept between two points with the real engine. Used by `engine_points`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.e2e.fleet import PREFIX, Fleet
from tools.chaos.account import FACTS
from tools.chaos.program import Size
from tools.chaos.verdict import Books, Canaries
from tools.stage import STACK, Stage

IMAGES = ("localhost/podfleet-node:dev", "localhost/podfleet-node:next")
POD_TYPE = "pulumi-python:dynamic/runpod:Pod"


@dataclass
class Scene:
    """A stage with its stack, its emulator and what lives there between two points."""

    stage: Stage
    foreign: set[str] = field(default_factory=set)
    size: Size | None = None
    rests_until_s: float = 0.0

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.stage)

    @property
    def state(self) -> Path:
        return self.stage.project / ".podfleet" / "state" / ".pulumi"

    def open(self) -> None:
        self.stage.lay()
        facts = {**FACTS, "state": "kept", "boot_s": 0.1}
        (self.stage.folder / "facts.yaml").write_text(json.dumps(facts))
        self.start_cloud()
        self.plant(f"{PREFIX}theirs-01-{'0' * 8}", "local-ffffffff")
        self.plant(f"theirs-slot-01-{'0' * 8}", self.uid)

    def close(self) -> None:
        self.fleet.end_leftovers()
        self.stage.stop_cloud()

    def start_cloud(self) -> None:
        self.stage.start_cloud("--facts", str(self.stage.folder / "facts.yaml"))

    def cloud_pid(self) -> int:
        return int(json.loads((self.stage.folder / "cloud" / "localcloud.json").read_text())["pid"])

    def plant(self, name: str, uid: str) -> None:
        body = {"name": name, "image": "x", "gpu": {"id": "NVIDIA A40"}, "disk": 5, "env": {"PODFLEET_UID": uid}}
        self.foreign.add(str(self.stage.cloud("/v2/pods", "POST", json=body)["id"]))

    @property
    def uid(self) -> str:
        self.stage.env  # noqa: B018 - `podfleet env` makes the uid
        return str(self._config()["podfleet:uid"])

    def write(self, size: Size, reconcile_s: int | None) -> None:
        """Into the stack file, without an engine."""
        values = {"pods": size.pods, "image": IMAGES[size.image], "reconcileSeconds": reconcile_s, "slots": None}
        config = {**self._config(), **{f"podfleet:{key}": value for key, value in values.items()}}
        config = {key: value for key, value in config.items() if value is not None}
        text = yaml.safe_dump({**self._file(), "config": config}, sort_keys=False)
        self.stage.stack_file.write_text(text)

    def _config(self) -> dict[str, Any]:
        return dict(self._file()["config"])

    def _file(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.stage.stack_file.read_text()))

    def known(self) -> list[str]:
        """Ids of the pods in the engine's state."""
        file = self.state / "stacks" / "podfleet" / f"{STACK}.json"
        try:
            latest = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        except (OSError, ValueError):
            return []
        return [found["id"] for found in latest.get("resources") or () if found["type"] == POD_TYPE and "id" in found]

    def own(self) -> None:
        """The ledger learns what the state knows."""
        self.stage.cloud("/_emu/ledger/owned", "POST", json={"ids": self.known(), "prefix": PREFIX})

    def books(self) -> Books:
        return Books.of(self.stage.cloud("/_emu/ledger"), PREFIX, self.foreign)

    def all_pods(self) -> list[dict[str, Any]]:
        return list(self.stage.cloud("/_emu/pods")["pods"])

    def canaries(self) -> Canaries:
        env = self.stage.env
        private = self.stage.pulumi("config", "get", "podfleet:sshPrivateKey").stdout
        line = max((each for each in private.splitlines() if not each.startswith("warning")), key=len)
        return Canaries((env["RUNPOD_API_KEY"], env["TAILSCALE_API_KEY"], line), patterns=("tskey-auth-",))
