"""The `command` and `tailscale` resources under the real engine, with the plugins and language host of `make setup`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
from plugin_targets import SshTarget, TailscaleTarget, ssh_target, tailscale_target

CHECKOUT = Path(__file__).resolve().parents[3]
PROGRAM = """
import pulumi
import pulumi_command as command
import pulumi_tailscale as tailscale

config = pulumi.Config()
provider = tailscale.Provider("tailnet", base_url=config.require("tailscale"), api_key="tskey-api-canary")
on_tailnet = pulumi.ResourceOptions(provider=provider)
tailscale.Acl("acl", acl="{}", overwrite_existing_content=True, reset_acl_on_destroy=True, opts=on_tailnet)
key = tailscale.TailnetKey("key", reusable=True, expiry=3600, tags=["tag:runpod"], opts=on_tailnet)
step = command.remote.Command(
    "step",
    connection=command.remote.ConnectionArgs(
        host="127.0.0.1",
        port=config.require_int("port"),
        private_key=config.require_secret("privateKey"),
        host_key=config.require("hostKey"),
        dial_error_limit=3,
    ),
    create=config.require("run"),
    stdin=key.key,
    triggers=[config.require("trigger")],
    add_previous_output_in_env=False,
    opts=pulumi.ResourceOptions(delete_before_replace=True),
)
pulumi.export("said", step.stdout)
"""


@dataclass
class Project:
    """A Pulumi project of its own, with its own state and plugin home; everything that was printed is kept."""

    folder: Path
    env: dict[str, str]
    printed: str = ""

    def pulumi(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["pulumi", *words, "--stack", "test", "--non-interactive"],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.printed += done.stdout
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def set(self, key: asyncssh.SSHKey | None = None, **config: str) -> None:
        """Config values; the SSH key to log in with is a secret one."""
        plain = [word for name, value in config.items() for word in ("--plaintext", f"{name}={value}")]
        secret = ["--secret", f"privateKey={key.export_private_key().decode()}"] if key else []
        self.pulumi("config", "set-all", *plain, *secret)

    def up(self, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", fails=fails)


@pytest.fixture
def ssh() -> Iterator[SshTarget]:
    with ssh_target() as target:
        yield target


@pytest.fixture
def tailnet() -> Iterator[TailscaleTarget]:
    with tailscale_target() as target:
        yield target


@pytest.fixture
def project(tmp_path: Path, ssh: SshTarget, tailnet: TailscaleTarget) -> Project:
    tools = json.loads((CHECKOUT / ".podfleet" / "toolchain.json").read_text())
    folder, home, state = (tmp_path / name for name in ("a project", "home", "state"))
    for made in (folder, home, state):
        made.mkdir()
    (home / "plugins").symlink_to(Path(tools["pulumi_home"]) / "plugins")
    (folder / "Pulumi.yaml").write_text("name: plugins\nruntime: python\n")
    (folder / "__main__.py").write_text(PROGRAM)
    env = {
        "PATH": os.pathsep.join([*tools["path"], os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "made-up",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "NO_COLOR": "1",
        # loopback is never asked through a proxy: this one would answer nothing
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    made_project = Project(folder, env)
    made_project.pulumi("stack", "init")
    places = {"tailscale": tailnet.url, "port": str(ssh.port), "hostKey": ssh.public_host_key}
    made_project.set(key=ssh.client_key, run="start", trigger="1", **places)
    return made_project


@pytest.mark.engine
def test_a_stack_of_commands_and_keys_comes_changes_and_goes(
    project: Project, ssh: SshTarget, tailnet: TailscaleTarget
) -> None:
    project.up()
    assert ssh.ran == [("start", "tskey-auth-canary")]
    assert sorted(tailnet.requests) == ["POST /acl", "POST /keys"]
    assert "canary" not in project.pulumi("stack", "export"), "secrets are encrypted in the state"
    project.pulumi("preview", "--expect-no-changes")

    project.set(run="start again")
    assert "did start again" in project.up()
    project.set(trigger="2")
    assert "replaced" in project.up()
    assert len(ssh.ran) == 3

    tailnet.keys.clear()
    project.pulumi("refresh", "--yes", "--skip-preview")
    assert "replaced" in project.up(), "a vanished key is made again"
    assert len(tailnet.keys) == 1

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert not tailnet.keys
    assert tailnet.policy == "", "the policy is reset with an empty body"
    assert "from $PATH" not in project.printed, "the engine finds language host and plugins where it expects them"


@pytest.mark.engine
def test_a_wrong_host_key_or_login_runs_nothing(project: Project, ssh: SshTarget) -> None:
    another = SshTarget()
    project.set(hostKey=another.public_host_key)
    assert "after 3 failed attempts: ssh: handshake failed: ssh: host key mismatch" in project.up(fails=True)
    project.set(key=another.client_key, hostKey=ssh.public_host_key)
    assert "unable to authenticate" in project.up(fails=True)
    assert ssh.ran == []
