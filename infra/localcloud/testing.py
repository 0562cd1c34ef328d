"""A cloud for a test: `with running(tmp_path / "cloud") as cloud: …`. For the tests of every package of this project.

The daemon is a process of its own on free ports; it ends with the block, and with the test process however that ends.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from localcloud.cli import daemon_command, read_news
from localcloud.statedir import StateDir

STOP_DEADLINE_S = 15.0
POLL_S = 0.03
T = TypeVar("T")


@dataclass(slots=True)
class RunningCloud:
    """Addresses, keys, and the control routes as methods. `kill` and `restart` change its pid, nothing else."""

    folder: Path
    runpod_url: str
    tailscale_url: str
    api_key: str = field(repr=False)
    tailscale_api_key: str = field(repr=False)
    control: httpx.Client = field(repr=False)
    daemon: "Daemon" = field(repr=False)

    @property
    def pid(self) -> int:
        """The daemon's."""
        return self.daemon.process.pid

    def kill(self) -> None:
        """SIGKILL: what it answered until now is in its journal, if `state` is `kept`. Its pods die with it."""
        self.daemon.process.kill()
        self.daemon.process.wait()

    def restart(self) -> None:
        """A new daemon in the same folder on the same ports, after `kill` or however the one before ended."""
        ports = [urlsplit(url).port or 0 for url in (self.runpod_url, self.tailscale_url)]
        self.daemon.process.wait(STOP_DEADLINE_S)
        self.daemon.start(*ports)

    def wait_for_death(self) -> None:
        """Return when the daemon has ended by itself (a fault that kills it)."""
        self.daemon.process.wait(STOP_DEADLINE_S)

    @property
    def environ(self) -> dict[str, str]:
        """Variables that point clients here."""
        return {
            "RUNPOD_API_KEY": self.api_key,
            "RUNPOD_API_BASE_URL": self.runpod_url,
            "TAILSCALE_API_KEY": self.tailscale_api_key,
            "TAILSCALE_BASE_URL": self.tailscale_url,
        }

    def client(self, api_key: str | None = None) -> httpx.Client:
        """A client with the account's key (or another one)."""
        headers = {"Authorization": f"Bearer {api_key or self.api_key}"}
        return httpx.Client(base_url=self.runpod_url, headers=headers, timeout=10, trust_env=False)

    def events(self, kind: str | None = None, since: int = 0) -> list[dict[str, Any]]:
        """What happened, oldest first."""
        events = self._get("/_emu/events", params={"since": since})["events"]
        return [event for event in events if kind in (None, event["kind"])]

    def last_seq(self) -> int:
        """Number of the newest event: `since` for what comes from now on."""
        events = self.events()
        return int(events[-1]["seq"]) if events else 0

    def wait_for_event(self, kind: str, *, since: int = 0, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any]:
        """The first event after `since` of this kind with these fields; TimeoutError when it does not come."""
        seen = since

        def found() -> dict[str, Any] | None:
            nonlocal seen
            events = self.events(since=seen)
            seen = events[-1]["seq"] if events else seen
            fits = (e for e in events if e["kind"] == kind and fields.items() <= e.items())
            return next(fits, None)

        return wait_until(found, timeout_s=timeout_s, what=f"event {kind} {fields}")

    def ledger(self) -> dict[str, Any]:
        """Bills, total, balance."""
        return self._get("/_emu/ledger")

    def own(self, ids: Iterable[str], prefix: str = "") -> dict[str, Any]:
        """Declare who is owned now, of the pods whose names begin with `prefix`; the live ones that are left out."""
        answer = self.control.post("/_emu/ledger/owned", json={"ids": list(ids), "prefix": prefix})
        body: dict[str, Any] = answer.raise_for_status().json()
        return body

    def pods(self) -> list[dict[str, Any]]:
        """Every pod there ever was, with `host`."""
        pods: list[dict[str, Any]] = self._get("/_emu/pods")["pods"]
        return pods

    def live_pods(self) -> list[dict[str, Any]]:
        """Pods that are not terminated."""
        return [pod for pod in self.pods() if pod["status"] != "TERMINATED"]

    def fault(self, op: str, action: str, phase: str = "before", **more: Any) -> str:
        """Arm a fault; its id."""
        answer = self.control.post("/_emu/faults", json={"op": op, "action": action, "phase": phase, **more})
        return str(answer.raise_for_status().json()["id"])

    def fault_kind(self, kind: str, **options: Any) -> str:
        """Arm a fault by its name (`localcloud fault kinds`); its id."""
        answer = self.control.post("/_emu/faults", json={"kind": kind, **options})
        return str(answer.raise_for_status().json()["id"])

    def faults(self) -> list[dict[str, Any]]:
        """All faults with their counts."""
        faults: list[dict[str, Any]] = self._get("/_emu/faults")["faults"]
        return faults

    def release(self, fault_id: str | None = None) -> None:
        """Disarm one fault, or all, and let go what they hold."""
        path = f"/_emu/faults/{fault_id}" if fault_id else "/_emu/faults"
        self.control.delete(path).raise_for_status()

    def wait_for_hit(self, fault_id: str, *, hits: int = 1, timeout_s: float = 10.0) -> None:
        """Return when a fault has hit so often."""

        def hit() -> bool:
            return any(fault["id"] == fault_id and fault["hits"] >= hits for fault in self.faults())

        wait_until(hit, timeout_s=timeout_s, what=f"hit {hits} of fault {fault_id}")

    def settings(self, **changes: Any) -> None:
        """Change settings of the running cloud."""
        self.control.patch("/_emu/settings", json=changes).raise_for_status()

    def reset(self) -> None:
        """End all pods, forget everything."""
        self.control.post("/_emu/reset").raise_for_status()

    def _get(self, path: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.control.get(path, params=params).raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


@contextlib.contextmanager
def running(folder: Path, *, runpod_port: int = 0, tailscale_port: int = 0, **settings: Any) -> Iterator[RunningCloud]:
    """A started cloud; `settings` are keys of facts.yaml. The ports are free ones unless named (to come back to)."""
    folder.mkdir(parents=True, exist_ok=True)
    facts_file = folder / "facts-of-test.yaml"
    facts_file.write_text(json.dumps(settings), "utf-8")
    daemon = Daemon(folder, facts_file)
    news = daemon.start(runpod_port, tailscale_port)
    keys = StateDir(folder).credentials()
    try:
        with httpx.Client(base_url=news["runpod_url"], timeout=30, trust_env=False) as control:
            yield RunningCloud(
                folder,
                news["runpod_url"],
                news["tailscale_url"],
                keys.runpod_api_key,
                keys.tailscale_api_key,
                control,
                daemon,
            )
    finally:
        _end(daemon.process)


@dataclass(slots=True)
class Daemon:
    """The process, which can be replaced by a new one; it ends when its stdin does, so with this process."""

    folder: Path
    facts_file: Path
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The one of now."""
        if self._process is None:
            raise RuntimeError("the daemon was not started")
        return self._process

    def start(self, runpod_port: int, tailscale_port: int) -> dict[str, Any]:
        """Start it; what it says of itself when it is ready."""
        log = StateDir(self.folder).log
        reader, writer = os.pipe()
        words = ["--ready-fd", str(writer), "--stop-on-stdin-eof"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*daemon_command(self.folder, runpod_port, tailscale_port, self.facts_file), *words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        return read_news(reader, self._process, str(log))


def wait_until(probe: Callable[[], T | None], *, timeout_s: float = 10.0, what: str = "the condition") -> T:
    """Poll until the probe gives something true; TimeoutError names what did not come."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come within {timeout_s} s")
        time.sleep(POLL_S)


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        sys.stderr.write("localcloud did not end in time and was killed\n")
