"""The directory of one localcloud: lock, credentials, who runs. Shared by `daemon` (writes) and `cli` (reads).

The lock is held by the daemon for as long as it lives, so "is it running" never depends on a number in a file.
"""

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from localcloud.errors import AlreadyRunning, StartError


@dataclass(frozen=True, slots=True)
class Running:
    """`localcloud.json`: the daemon of now."""

    pid: int
    runpod_url: str
    tailscale_url: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """Made once per directory and kept."""

    runpod_api_key: str = field(repr=False)
    tailscale_api_key: str = field(repr=False)
    oauth_client_id: str
    oauth_client_secret: str = field(repr=False)


class StateDir:
    """Paths and files of one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.json = self.path / "localcloud.json"
        self.events = self.path / "events.jsonl"
        self.journal = self.path / "journal.jsonl"
        self.log = self.path / "localcloud.log"
        self._env = self.path / "credentials.env"
        self._oauth = self.path / "oauth.env"

    def make(self) -> None:
        """Create it, for the owner alone; StartError when it cannot be written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.log.open("ab").close()
        except OSError as error:
            raise StartError(f"cannot keep files in {self.path}: {error.strerror}") from None

    def lock(self) -> IO[str]:
        """Hold the lock until the file is closed; AlreadyRunning when another process does."""
        handle = (self.path / "lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise AlreadyRunning(self._already()) from None
        return handle

    def is_locked(self) -> bool:
        """Whether a daemon lives here."""
        if not (self.path / "lock").exists():
            return False
        try:
            self.lock().close()
        except AlreadyRunning:
            return True
        return False

    def running(self) -> Running | None:
        """What the last daemon wrote, whether it lives or not."""
        try:
            return Running(**json.loads(self.json.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write_running(self, running: Running) -> None:
        """Say who runs; whole or not at all."""
        draft = self.json.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(running)) + "\n", "utf-8")
        draft.replace(self.json)

    def credentials(self) -> Credentials:
        """Read the two files, making what is missing."""
        keys = {**_read_env(self._env), **_read_env(self._oauth)}
        made = Credentials(
            keys.get("RUNPOD_API_KEY") or f"rpa_{secrets.token_hex(20).upper()}",
            keys.get("TAILSCALE_API_KEY") or f"tskey-api-{secrets.token_hex(16)}",
            keys.get("TAILSCALE_OAUTH_CLIENT_ID") or f"k{secrets.token_hex(6)}CNTRL",
            keys.get("TAILSCALE_OAUTH_CLIENT_SECRET") or f"tskey-client-{secrets.token_hex(16)}",
        )
        _write_env(self._env, {"RUNPOD_API_KEY": made.runpod_api_key, "TAILSCALE_API_KEY": made.tailscale_api_key})
        _write_env(
            self._oauth,
            {
                "TAILSCALE_OAUTH_CLIENT_ID": made.oauth_client_id,
                "TAILSCALE_OAUTH_CLIENT_SECRET": made.oauth_client_secret,
            },
        )
        return made

    def _already(self) -> str:
        running = self.running()
        who = f" (pid {running.pid}, {running.runpod_url})" if running else ""
        return f"already running in {self.path}{who}; end it with `localcloud down --dir '{self.path}'`"


def _read_env(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {key: value for key, _, value in (line.partition("=") for line in lines) if value}


def _write_env(path: Path, values: dict[str, str]) -> None:
    if _read_env(path) == values:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.writelines(f"{key}={value}\n" for key, value in values.items())
