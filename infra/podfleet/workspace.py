"""A checkout and one of its stacks: where its files are, which environment the engine needs, its uid and SSH key.

Called by the command line (`podfleet env` prints the environment) and by `deploy`. Which cloud, which backend and which
Pulumi home a stack has are values in its file; nothing here depends on a stack's name.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from podfleet.config import NAMESPACE, STACK_VARIABLE, STATE_DIR_VARIABLE, PodfleetConfig, parse, uid_problem
from podfleet.errors import ConfigError, EngineError
from podfleet.podspec import name_prefix

STATE_FOLDER = ".podfleet"
TOOLCHAIN = "toolchain.json"
MADE_VARIABLE = "PODFLEET_ENV_MADE"  # names of what `podfleet env` has set in a shell
KEPT_VARIABLE = "PODFLEET_ENV_KEPT"  # what a person had under such a name, to come back with the next stack
PASSPHRASE_VARIABLES = frozenset({"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"})
HIDDEN = "[secret]"  # stands for the value of a secret in `raw_config`
PARALLEL_VARIABLE = "PULUMI_PARALLEL"
PARALLEL = 64  # operations at once; the engine's own choice is four per core, and ours mostly wait
PRIVATE_KEY, PUBLIC_KEY, UID = "sshPrivateKey", "sshPublicKey", "uid"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A project folder (it holds Pulumi.yaml) and the name of a stack in it."""

    project_dir: Path
    stack: str

    @property
    def stack_file(self) -> Path:
        return self.project_dir / "stacks" / f"Pulumi.{self.stack}.yaml"

    @property
    def state_dir(self) -> Path:
        return self.project_dir / STATE_FOLDER

    @property
    def project(self) -> str:
        return str(yaml.safe_load((self.project_dir / "Pulumi.yaml").read_text())["name"])

    @property
    def prefix(self) -> str:
        """What the remote names of this stack's pods begin with."""
        return name_prefix(self.project, self.stack)

    def raw_config(self) -> dict[str, Any]:
        """The stack file's values; a secret is its stand-in text, never its value."""
        values = self._file_config()
        return {
            key: HIDDEN if isinstance(value, dict) and "secure" in value else value for key, value in values.items()
        }

    def _file_config(self) -> dict[str, Any]:
        where = self.stack_file.relative_to(self.project_dir)
        try:
            content = yaml.safe_load(self.stack_file.read_text()) or {}
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise ConfigError(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
        values = content.get("config") if isinstance(content, dict) else content
        if not isinstance(values or {}, dict):
            raise ConfigError(f"{where}: `config:` has to be a mapping of keys to values")
        return values or {}

    def config(self) -> PodfleetConfig:
        """The stack's config, checked as a whole. Raises ConfigError."""
        return parse(self.raw_config(), stack=self.stack)


def find(stack: str, start: Path) -> Workspace:
    """The workspace of `stack` at or above `start`. Raises ConfigError naming the stacks that exist."""
    project_dir = next((folder for folder in (start, *start.parents) if (folder / "Pulumi.yaml").exists()), None)
    if project_dir is None:
        raise ConfigError([f"no Pulumi.yaml in {start} or above: run this inside a podfleet checkout"])
    workspace = Workspace(project_dir, stack)
    if not workspace.stack_file.exists():
        known = sorted(path.name.split(".")[1] for path in (project_dir / "stacks").glob("Pulumi.*.yaml"))
        raise ConfigError([f"no stack {stack!r}: stacks/ has {', '.join(known) or 'none'}"])
    return workspace


def environment(workspace: Workspace, outer: Mapping[str, str]) -> dict[str, str]:
    """What the engine needs beyond `outer`: programs on PATH, home, backend, passphrase, credentials.

    Credentials and a passphrase that a person has set win; where state, plugins and cloud are, the stack's file says,
    and PATH is extended. What an earlier `podfleet env` has set does not count as a person's: one stack's cloud must
    never be another's.
    """
    outer = without_made(outer)
    raw = workspace.raw_config()
    env = {"PATH": _path(workspace, outer), "PULUMI_SKIP_UPDATE_CHECK": "true", STACK_VARIABLE: workspace.stack}
    env["no_grpc_proxy"] = "127.0.0.1,localhost"  # the engine and its plugins talk over loopback, never by a proxy
    env[STATE_DIR_VARIABLE] = str(workspace.state_dir)
    if PARALLEL_VARIABLE not in outer:
        env[PARALLEL_VARIABLE] = str(PARALLEL)
    if home := _value(raw, "pulumiHome"):
        env["PULUMI_HOME"] = str(workspace.project_dir / home)
        env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if backend := _value(raw, "backendUrl"):
        env["PULUMI_BACKEND_URL"] = _backend(workspace, backend)
        if backend.startswith("file:") and not PASSPHRASE_VARIABLES & outer.keys():
            env["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase_file(workspace))
    env["RUNPOD_API_BASE_URL"] = _value(raw, "runpodUrl") or str(PodfleetConfig.model_fields["runpod_url"].default)
    if file := _value(raw, "credentialsFile"):
        env |= {key: value for key, value in _credentials(workspace.project_dir / file).items() if key not in outer}
    if kept := {name: outer[name] for name in env if name != "PATH" and outer.get(name, env[name]) != env[name]}:
        env[KEPT_VARIABLE] = json.dumps(kept, sort_keys=True)
    env[MADE_VARIABLE] = ",".join(sorted(env.keys() - {"PATH"}))
    return env


def without_made(outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` as it was before an earlier `podfleet env`."""
    made = {*outer.get(MADE_VARIABLE, "").split(","), MADE_VARIABLE}
    kept: dict[str, str] = json.loads(outer.get(KEPT_VARIABLE) or "{}")
    return {**{key: value for key, value in outer.items() if key not in made}, **kept}


def without_stack(start: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of no stack: what a checkout at or above `start` has set up is on PATH."""
    found = next((folder for folder in (start, *start.parents) if (folder / "Pulumi.yaml").exists()), start)
    return {**without_made(outer), "PATH": _path(Workspace(found, ""), outer)}


def complete(workspace: Workspace, outer: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a process that works on this stack."""
    return {**without_made(outer), **environment(workspace, outer)}


def prepare(workspace: Workspace, outer: Mapping[str, str]) -> dict[str, str]:
    """Make what a stack needs once (the stack itself, its uid, its SSH key pair); answers the environment.

    Idempotent. The uid is taken from the stack's file, else from its outputs, else made. Raises EngineError, and
    ConfigError for a uid that was copied from another stack.
    """
    raw = workspace.raw_config()
    if (uid := _value(raw, UID)) and (copied := uid_problem(uid, workspace.stack)):
        raise ConfigError(copied)
    env = environment(workspace, outer)
    full = {**without_made(outer), **env}
    if run_engine(workspace, full, "stack", "--show-name", check=False).returncode:
        run_engine(workspace, full, "stack", "init", workspace.stack)
    if not _value(raw, UID):
        made = f"{workspace.stack}-{secrets.token_hex(4)}"
        known = run_engine(workspace, full, "stack", "output", UID, check=False).stdout.strip()
        run_engine(workspace, full, "config", "set", f"{NAMESPACE}:{UID}", known or made)
    if not (_value(raw, PRIVATE_KEY) and _value(raw, PUBLIC_KEY)):
        private, public = _key_pair(f"podfleet-{workspace.stack}")
        run_engine(workspace, full, "config", "set", "--secret", f"{NAMESPACE}:{PRIVATE_KEY}", stdin=private)
        run_engine(workspace, full, "config", "set", f"{NAMESPACE}:{PUBLIC_KEY}", public)
    return env


def _value(raw: Mapping[str, Any], key: str) -> str:
    return str(raw.get(f"{NAMESPACE}:{key}") or "")


def _path(workspace: Workspace, outer: Mapping[str, str]) -> str:
    file = workspace.state_dir / TOOLCHAIN
    ours = json.loads(file.read_text())["path"] if file.exists() else []
    theirs = [part for part in outer.get("PATH", os.defpath).split(os.pathsep) if part not in ours]
    return os.pathsep.join([*ours, *theirs])


def _backend(workspace: Workspace, url: str) -> str:
    """The URL for the engine: a relative folder is the project's, and is made; see decision 8 for `metadata=skip`."""
    scheme = "file://"
    if not url.startswith(scheme):
        return url
    path, _, query = url.removeprefix(scheme).partition("?")
    if not path.startswith(("/", "~")):
        folder = workspace.project_dir / path
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder)
    options = [part for part in query.split("&") if part]
    if not any(part.startswith("metadata=") for part in options):
        options.append("metadata=skip")
    return f"{scheme}{path}?{'&'.join(options)}"


def _passphrase_file(workspace: Workspace) -> Path:
    file = workspace.state_dir / "passphrase"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file


def _credentials(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.removeprefix("export ").strip(): value.strip().strip("'\"") for key, value in pairs}


def _key_pair(comment: str) -> tuple[str, str]:
    """An ed25519 pair in OpenSSH's formats: private text, public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def run_engine(
    workspace: Workspace, env: Mapping[str, str], *words: str, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """One command of the engine on this stack. Raises EngineError where it fails (with `check`) or is missing."""
    command = ["pulumi", *words, "--non-interactive", "--stack", workspace.stack]
    if words[:2] == ("stack", "init"):
        command = ["pulumi", *words, "--non-interactive"]
    try:
        done = subprocess.run(
            command,
            cwd=workspace.project_dir,
            env=dict(env),
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise EngineError("pulumi is not on PATH: run `make setup`, or install Pulumi 3.259 or newer") from None
    if check and done.returncode:
        raise EngineError(f"pulumi {' '.join(words[:2])}: {_last_line(done.stderr or done.stdout)}{_hint(done.stderr)}")
    return done


def _hint(text: str) -> str:
    """What the engine does not say: where the passphrase was, and what to do without it."""
    if "incorrect passphrase" not in text:
        return ""
    return (
        "; the secrets in the stack's file were made with another one: bring it back, "
        "or, where nothing of this stack runs, `git checkout` the file"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
