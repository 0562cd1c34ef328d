"""A stage for the whole fleet on one machine: a copy of the project, the stand-in cloud, a queue server.

Used by `make demo` and by the end-to-end tests. The committed stack file is never written: the copy holds links to
`infra/` and a stack file of its own, with the ports and settings of this run.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
STACK = "local"
MADE_PER_STACK = ("uid", "sshPublicKey", "sshPrivateKey", "slots", "decision")
PORTS = (8790, 8791, 8792)
READY_S = 30.0
PR_SET_PDEATHSIG = 1
STOP_S = 60.0


class StageError(Exception):
    """Something on the stage would not start or stop; says which and where its log is."""


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one run."""

    runpod: int
    tailscale: int
    queue: int


def free_ports(wished: tuple[int, ...] = ()) -> Ports:
    """The wished ports where they are all free, else any three."""
    if wished and all(map(_is_free, wished)):
        return Ports(*wished)
    sockets = [socket.socket() for _ in range(3)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return Ports(*found)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Stage:
    """One run's folder with `project/`, `cloud/`, `queue/` and `logs/` in it."""

    folder: Path
    ports: Ports
    settings: Mapping[str, Any] = field(default_factory=dict)
    _queue: subprocess.Popen[bytes] | None = None
    _env: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def cloud_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.runpod}"

    @property
    def tailscale_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.tailscale}"

    @property
    def queue_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.queue}"

    @property
    def stack_file(self) -> Path:
        return self.project / "stacks" / f"Pulumi.{STACK}.yaml"

    # Setting up

    def lay(self) -> None:
        """The project's copy: the same Pulumi.yaml and program, a stack file of its own."""
        (self.project / "stacks").mkdir(parents=True, exist_ok=True)
        (self.project / ".podfleet").mkdir(exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / "Pulumi.yaml", self.project)
        shutil.copy(CHECKOUT / ".podfleet" / "toolchain.json", self.project / ".podfleet")
        link = self.project / "infra"
        if not link.exists():
            link.symlink_to(CHECKOUT / "infra")
        committed = yaml.safe_load((CHECKOUT / "stacks" / f"Pulumi.{STACK}.yaml").read_text())["config"]
        ours = {
            "backendUrl": "file://.podfleet/state",
            "pulumiHome": str(CHECKOUT / ".podfleet" / "pulumi-home"),
            "credentialsFile": str(self.folder / "cloud" / "credentials.env"),
            "runpodUrl": self.cloud_url,
            "tailscaleUrl": self.tailscale_url,
            "queueUrl": self.queue_url,
            **self.settings,
        }
        kept = {key: value for key, value in committed.items() if key.split(":")[1] not in MADE_PER_STACK}
        values = {**kept, **{f"podfleet:{key}": value for key, value in ours.items()}}
        self.stack_file.write_text(yaml.safe_dump({"config": values}, sort_keys=False))

    def start_cloud(self, *options: str) -> None:
        """`localcloud up`, as a person would type it."""
        where = ["--dir", str(self.folder / "cloud")]
        ports = ["--runpod-port", str(self.ports.runpod), "--tailscale-port", str(self.ports.tailscale)]
        self._program("localcloud", "up", *where, *ports, *options)

    def stop_cloud(self) -> None:
        self._program("localcloud", "down", "--dir", str(self.folder / "cloud"), check=False)

    def start_queue(self, *options: str) -> None:
        """`podfleet-queue serve` as a process of ours, until it answers. A lost pod's job comes back in two minutes."""
        log = (self.logs / "queue.log").open("ab")
        command = [
            _bin("podfleet-queue"),
            "serve",
            "--dir",
            str(self.folder / "queue"),
            "--port",
            str(self.ports.queue),
        ]
        command += ["--lease-s", "120", "--retry-s", "5", *options]
        self._queue = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_us,  # noqa: PLW1509  one system call, in a process without threads
        )
        end = time.monotonic() + READY_S
        while not self._queue_answers():
            if self._queue.poll() is not None or time.monotonic() > end:
                raise StageError(f"podfleet-queue did not start; see {self.logs / 'queue.log'}")
            time.sleep(0.1)

    def stop_queue(self) -> None:
        if self._queue is not None and self._queue.poll() is None:
            self._queue.terminate()
            try:
                self._queue.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._queue.kill()

    def _queue_answers(self) -> bool:
        try:
            return httpx.get(f"{self.queue_url}/api/health", timeout=2, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _program(self, name: str, *words: str, check: bool = True) -> None:
        done = subprocess.run([_bin(name), *words], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise StageError(done.stderr.strip() or done.stdout.strip() or f"{name} failed")

    # The engine and our own commands

    @property
    def env(self) -> dict[str, str]:
        """This process's environment plus what `podfleet env` prints."""
        if not self._env:
            done = self.podfleet("env", STACK, env=_outer())
            if done.returncode:
                raise StageError(done.stderr.strip())
            shown = subprocess.run(
                [
                    "/bin/sh",
                    "-c",
                    f'{done.stdout}\nexec {_bin("python")} -c "import json,os; print(json.dumps(dict(os.environ)))"',
                ],
                env=_outer(),
                capture_output=True,
                text=True,
                check=True,
            )
            self._env = {**json.loads(shown.stdout), "NO_COLOR": "1"}
        return self._env

    def podfleet(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `podfleet …` in the project's copy."""
        return subprocess.run(
            [_bin("podfleet"), *words],
            cwd=self.project,
            env=dict(env or self.env),
            capture_output=True,
            text=True,
            check=False,
        )

    def pulumi(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the engine to its end; stdout and stderr together."""
        return subprocess.run(
            ["pulumi", *words, "--stack", STACK, "--non-interactive"],
            cwd=self.project,
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def spawn(self, command: list[str], *, log: Path | None = None) -> subprocess.Popen[str]:
        """A command in a session of its own, so that Ctrl-C reaches us first; its output to a pipe or a log."""
        output = log.open("w") if log else subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def stream(self, command: list[str], show: Callable[[str], None]) -> int:
        """Run a command and show its lines as they come. An interrupt is passed on once, and waited for."""
        process = self.spawn(command)
        try:
            for line in process.stdout or ():
                show(line.rstrip("\n"))
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            for line in process.stdout or ():
                show(line.rstrip("\n"))
            process.wait()
            raise

    # What the cloud says

    def cloud(self, path: str, method: str = "GET", **options: Any) -> Any:
        """A request to the stand-in's API, with the account's key."""
        headers = {"Authorization": f"Bearer {self.env['RUNPOD_API_KEY']}"}
        answer = httpx.request(
            method, f"{self.cloud_url}{path}", headers=headers, timeout=30, trust_env=False, **options
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def pods(self) -> list[dict[str, Any]]:
        """All pods that the cloud lists now."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.cloud("/v2/pods", params={"cursor": cursor} if cursor else None)
            found += page["pods"]
            more = page.get("pagination") or {}
            if not more.get("hasNextPage"):
                return found
            cursor = more["nextCursor"]

    def tailnet_keys(self) -> list[Any]:
        """Keys that the tailnet's API lists."""
        answer = httpx.get(
            f"{self.tailscale_url}/api/v2/tailnet/-/keys",
            auth=(self.env["TAILSCALE_API_KEY"], ""),
            timeout=10,
            trust_env=False,
        )
        answer.raise_for_status()
        return list(answer.json()["keys"])

    def queue(self, path: str) -> Any:
        """A JSON answer of the queue server."""
        answer = httpx.get(f"{self.queue_url}{path}", timeout=30, trust_env=False)
        answer.raise_for_status()
        return answer.json()


def _die_with_us() -> None:
    """A demo or test that is killed takes its queue server along (Linux; elsewhere it stays)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _bin(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _outer() -> dict[str, str]:
    """Our environment, without what a stack's environment may have left in this shell."""
    foreign = ("PULUMI_", "RUNPOD_", "TAILSCALE_", "PODFLEET_")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
