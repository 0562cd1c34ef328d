"""What the state of a stack says, read without changing it: resources, locks, and whether it can be read at all.

Called by `healing` and `sweeping`. A state in a folder of this machine (`file://`) is read as the engine writes it,
also where there is no engine; any other is asked for through the engine, and its locks cannot be seen.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import unquote

from podfleet.errors import EngineError, StateUnreadable
from podfleet.processes import Holder
from podfleet.workspace import Workspace, run_engine

LOCKED = ("is currently locked by", "Another update is currently in progress")
SCHEME = "file://"
BOOKKEEPING = ".pulumi"
ROOT_TYPE = "pulumi:pulumi:Stack"
GUARD_TYPE = "pulumi-python:dynamic/runpod:Guard"


@dataclass(frozen=True, slots=True)
class StateView:
    """What the state knows: ids and names of its resources, whose fleet it is, and what was begun and not ended."""

    ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    uids: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()
    root: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file. `holder` is None where it cannot be read."""

    file: Path
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class StateFolder:
    """A `file://` backend as far as one stack goes."""

    folder: Path
    project: str
    stack: str

    @property
    def checkpoint(self) -> Path:
        """The state itself; it may be compressed."""
        plain = self.folder / "stacks" / self.project / f"{self.stack}.json"
        packed = plain.with_name(f"{plain.name}.gz")
        return packed if packed.exists() and not plain.exists() else plain

    @property
    def older(self) -> list[Path]:
        """Copies that the engine has made, newest first: the last but one write, and the state before each update."""
        name = self.checkpoint.name
        backups = self.folder / "backups" / self.project / self.stack
        found = [self.checkpoint.with_name(f"{name}.bak"), *backups.glob(f"{self.stack}.*{self.checkpoint.suffix}")]
        return sorted((file for file in found if file.exists()), key=lambda file: file.stat().st_mtime, reverse=True)

    def locks(self) -> list[Lock]:
        """Everything that the engine takes for a lock."""
        where = self.folder / "locks" / "organization" / self.project / self.stack
        files = sorted(where.glob("*")) if where.is_dir() else []
        return [Lock(file, _holder(file)) for file in files if file.suffix != ".attrs"]

    def read(self) -> StateView:
        """Raises StateUnreadable where there is none, or none that makes sense."""
        return view_of(load(self.checkpoint).get("latest") or {})


def state_folder(workspace: Workspace, env: Mapping[str, str]) -> StateFolder | None:
    """Where this machine keeps the state; None where somebody else does (a bucket, Pulumi's cloud)."""
    url = env.get("PULUMI_BACKEND_URL") or _logged_in(env)
    if not url.startswith(SCHEME):
        return None
    path = unquote(url.removeprefix(SCHEME).partition("?")[0])
    home = env.get("HOME") or str(Path.home())
    path = home + path.removeprefix("~") if path.startswith("~") else path
    folder = (workspace.project_dir / path).absolute()  # an absolute path stays what it is
    return StateFolder(folder / BOOKKEEPING, workspace.project, workspace.stack)


def read_state(workspace: Workspace, env: Mapping[str, str]) -> StateView:
    """The stack's state, from wherever it is. Raises StateUnreadable; nothing is in it is not the same."""
    if folder := state_folder(workspace, env):
        return folder.read()
    try:
        shown = run_engine(workspace, env, "stack", "export").stdout  # secrets stay encrypted
        deployment = json.loads(shown)["deployment"]
    except EngineError as error:
        raise StateUnreadable(f"the state cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise StateUnreadable("the state cannot be read: the engine shows something else") from None
    return view_of(deployment)


def is_locked(done: CompletedProcess[str]) -> bool:
    """Whether a command of the engine failed because another update runs."""
    return done.returncode != 0 and any(words in done.stdout + done.stderr for words in LOCKED)


def refresh_root(workspace: Workspace, env: Mapping[str, str], root: str, *words: str) -> CompletedProcess[str]:
    """Refresh the stack's own entry, for which no provider is asked: it takes the lock, and so tells of another's."""
    target = ["--target", root] if root else []
    return run_engine(workspace, env, "refresh", "--yes", "--skip-preview", *words, *target, check=False)


def view_of(deployment: Mapping[str, Any]) -> StateView:
    """The engine's deployment, cut down. Pure. Raises StateUnreadable for what is none."""
    try:
        resources = list(deployment.get("resources") or ())
        guards = [found.get("outputs") or {} for found in resources if found["type"] == GUARD_TYPE]
        pending = [found["resource"]["urn"] for found in deployment.get("pending_operations") or ()]
        return StateView(
            ids=frozenset(str(found["id"]) for found in resources if found.get("id")),
            names=frozenset(name for found in resources for name in _names(found)),
            uids=frozenset(str(guard.get("uid")) for guard in guards),
            wanted=frozenset(str(name) for guard in guards for name in guard.get("wanted") or ()),
            pending=tuple(urn.rsplit("::", 1)[-1] for urn in pending),
            root=next((found["urn"] for found in resources if found["type"] == ROOT_TYPE), ""),
        )
    except (KeyError, TypeError, AttributeError):
        raise StateUnreadable("the state cannot be read: it is not as the engine writes it") from None


def load(file: Path) -> dict[str, Any]:
    """The checkpoint in a file. Raises StateUnreadable, in words for people."""
    try:
        content = file.read_bytes()
        text = gzip.decompress(content) if file.name.removesuffix(".bak").endswith(".gz") and content else content
        checkpoint = json.loads(text)["checkpoint"] if text.strip() else None
    except FileNotFoundError:
        raise StateUnreadable(f"there is no state of this stack at {file}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise StateUnreadable(f"the state at {file} cannot be read: {error or type(error).__name__}") from None
    if not isinstance(checkpoint, dict):
        raise StateUnreadable(f"the state at {file} is empty")
    return checkpoint


def _names(resource: Mapping[str, Any]) -> Iterator[str]:
    for part in ("inputs", "outputs"):
        if isinstance(name := (resource.get(part) or {}).get("name"), str):
            yield name


def _holder(file: Path) -> Holder | None:
    try:
        found = json.loads(file.read_text())
        return Holder(int(found["pid"]), str(found["hostname"]), datetime.fromisoformat(found["timestamp"]).timestamp())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _logged_in(env: Mapping[str, str]) -> str:
    """The backend of `pulumi login`, where no variable names one."""
    home = env.get("PULUMI_HOME") or os.path.join(env.get("HOME") or str(Path.home()), BOOKKEEPING)  # noqa: PTH118
    try:
        return str(json.loads((Path(home) / "credentials.json").read_text()).get("current") or "")
    except (OSError, ValueError, AttributeError):
        return ""
