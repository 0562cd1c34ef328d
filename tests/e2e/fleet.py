"""What the end-to-end tests say to a fleet: config, engine, cloud, faults. Thin words over `tools.stage.Stage`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tools.stage import STACK, Stage

LIVE = ("PROVISIONING", "STARTING", "RUNNING")
UP = ("up", "--yes", "--skip-preview")
DESTROY = ("destroy", "--yes", "--skip-preview")
REFRESH = ("refresh", "--yes", "--skip-preview")
PREFIX = "podfleet-local-"
# What an engine starts and a killed one leaves: dynamic provider, language host, program, plugins.
OF_AN_ENGINE = (
    b"podfleet.launcher",
    b"pulumi.dynamic",
    b"pulumi-language",
    b"pulumi-resource",
    b"language_host",
    b"plugins/resource-",
)


@dataclass
class Fleet:
    """One stack on a stage."""

    stage: Stage

    # Config and engine

    def config(self, **values: object) -> None:
        """`pulumi config set`, a key at a time; None removes the key."""
        for key, value in values.items():
            words = ("rm", f"podfleet:{key}") if value is None else ("set", f"podfleet:{key}", str(value))
            done = self.stage.pulumi("config", *words)
            assert done.returncode == 0, done.stdout

    def up(self, *words: str, rc: int = 0) -> str:
        """`pulumi up`; asserts its exit status (any failure where `rc` is 1)."""
        return self._engine(*UP, *words, rc=rc)

    def destroy(self, *, rc: int = 0) -> str:
        return self._engine(*DESTROY, rc=rc)

    def refresh(self) -> str:
        return self._engine(*REFRESH)

    def preview(self, *words: str, rc: int = 0) -> str:
        return self._engine("preview", *words, rc=rc)

    def _engine(self, *words: str, rc: int = 0) -> str:
        done = self.stage.pulumi(*words)
        assert (done.returncode != 0) == (rc != 0), f"pulumi {' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def urn(self, name: str) -> str:
        """The URN of a resource in the state."""
        shown = self.stage.pulumi("stack", "--show-urns").stdout
        return next(word for word in shown.split() if word.startswith("urn:") and word.endswith(f"::{name}"))

    # The cloud

    def pods(self) -> list[dict[str, Any]]:
        """Pods of ours by the cloud's own list, live or not."""
        return [pod for pod in self.stage.pods() if pod["name"].startswith(PREFIX)]

    def slots(self) -> list[str]:
        """The slots of our live pods, sorted; a slot with two pods stands twice."""
        return sorted(slot_of(pod) for pod in self.pods() if pod["status"] in LIVE)

    def pod(self, slot: str) -> dict[str, Any]:
        return next(pod for pod in self.pods() if slot_of(pod) == slot)

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """The cloud's event log."""
        return list(self.stage.cloud("/_emu/events", params={"since": since})["events"])

    def last_event(self) -> int:
        return max((event["seq"] for event in self.events()), default=0)

    def emulate(self, **settings: object) -> None:
        """Change the stand-in cloud's behaviour: stock, delays, limits."""
        self.stage.cloud("/_emu/settings", "PATCH", json=settings)

    def fault(self, **fault: object) -> str:
        """Plant a fault; answers its id."""
        return str(self.stage.cloud("/_emu/faults", "POST", json=fault)["id"])

    def release(self, fault_id: str = "") -> None:
        """Take a fault away (all without an id); a held request goes on."""
        self.stage.cloud(f"/_emu/faults/{fault_id}" if fault_id else "/_emu/faults", "DELETE")

    def was_hit(self, fault_id: str, since: int = 0) -> bool:
        return any(event["kind"] == "fault.hit" and event["fault_id"] == fault_id for event in self.events(since))

    def wait_for_hit(self, fault_id: str, *, limit_s: float = 60) -> None:
        """Until a fault has hit: then the engine stands at this very request."""
        end_s = time.monotonic() + limit_s
        while not self.was_hit(fault_id):
            assert time.monotonic() < end_s, f"fault {fault_id} did not hit within {limit_s:.0f} s"
            time.sleep(0.05)

    # The queue

    def add_job(self, audio: bytes, title: str, filename: str = "a.wav") -> int:
        """Queue an episode; answers its job id."""
        answer = httpx.post(
            f"{self.stage.queue_url}/api/episodes", params={"title": title, "filename": filename}, content=audio
        )
        answer.raise_for_status()
        return int(answer.json()["job_id"])

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.stage.queue("/api/queue/all?limit=10000")["jobs"])

    # Between tests

    def reset(self) -> None:
        """No faults, no pods wanted, default settings."""
        self.release()
        self.config(pods=0, slots=None, image="localhost/podfleet-node:dev", bootstrap="image", model=None)

    def tear_down(self) -> None:
        """End everything; pods that outlive `destroy` fail the test that left them."""
        self.release()
        self.end_leftovers()
        self.stage.pulumi("cancel", "--yes")
        self.destroy()
        assert self.pods() == []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """An engine in the background, in a session of its own; its output goes to a log."""
        command = ["pulumi", *words, "--stack", STACK, "--non-interactive"]
        return self.stage.spawn(command, log=self.stage.logs / "background.log")

    def end_leftovers(self) -> list[int]:
        """End what a killed engine left running: providers, language host, program of this stage. Answers their ids."""
        mine = str(self.stage.folder).encode()
        ended = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                env = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mine in env and any(word in command for word in OF_AN_ENGINE):
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                    ended.append(int(entry.name))
                except ProcessLookupError:
                    pass
        return ended


def slot_of(pod: dict[str, Any]) -> str:
    """`podfleet-local-slot-01-<hash>` → `slot-01`."""
    return str(pod["name"]).removeprefix(PREFIX).rsplit("-", 1)[0]
