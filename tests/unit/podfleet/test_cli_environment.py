"""The command line: what the engine and the shell get of a stack's environment, and a `scale` without a queue."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from podfleet.cli import sizing
from podfleet.errors import PodfleetError
from podfleet.workspace import Workspace, complete

ENGINE = """#!/bin/sh
test "$1" = version && echo v3.259.0 && exit
env >"$SEEN.$$"
exit 1
"""
LOCAL = """config:
  podfleet:backendUrl: file://.podfleet/state
  podfleet:pulumiHome: .podfleet/home
  podfleet:credentialsFile: keys.env
"""
PROD = """config:
  podfleet:uid: prod-0a1b2c3d
  podfleet:sshPublicKey: a
  podfleet:sshPrivateKey: b
  podfleet:image: i:1
  podfleet:gpuTypes: [NVIDIA L4]
  podfleet:queueUrl: http://127.0.0.1:9
"""


def test_the_engine_of_one_stack_sees_nothing_of_another(tmp_path: Path) -> None:
    for name, text in {"Pulumi.local.yaml": LOCAL, "Pulumi.prod.yaml": PROD}.items():
        (tmp_path / "stacks").mkdir(exist_ok=True)
        (tmp_path / "stacks" / name).write_text(text)
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\nruntime: python\nstackConfigDir: stacks\n")
    (tmp_path / "keys.env").write_text("RUNPOD_API_KEY=rpa_local\nTAILSCALE_API_KEY=tskey-local\n")
    engine = tmp_path / "bin" / "pulumi"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    plain = {"PATH": f"{engine.parent}{os.pathsep}{os.defpath}", "SEEN": str(tmp_path / "seen")}
    shell = complete(Workspace(tmp_path, "local"), plain)
    assert shell["RUNPOD_API_KEY"] == "rpa_local"

    # the automation API is what matters here: `preview` would stop earlier, without a key
    script = (
        "import os; from pathlib import Path; from podfleet.cli import shared; "
        "from podfleet.workspace import Workspace; shared.deployment_of(Workspace(Path.cwd(), 'prod'))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=shell, capture_output=True, check=False)
    seen = [file.read_text() for file in tmp_path.glob("seen.*")]
    assert seen, "the engine was started"
    for text in seen:
        assert "PODFLEET_STACK=prod" in text
        for foreign in ("rpa_local", "tskey-local", "PULUMI_HOME", "PULUMI_BACKEND_URL", "PASSPHRASE"):
            assert foreign not in text


SILENT = "#!/bin/sh\nexit 0\n"


def test_the_shell_gets_back_what_a_stack_had_covered(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.prod.yaml").write_text(PROD)
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\n")
    engine = tmp_path / "bin" / "pulumi"
    engine.parent.mkdir()
    engine.write_text(SILENT)
    engine.chmod(0o755)
    shell = {
        "PATH": f"{engine.parent}{os.pathsep}{os.defpath}",
        "PULUMI_BACKEND_URL": "file:///of/local",
        "PULUMI_HOME": "/of/local",
        "PODFLEET_ENV_MADE": "PULUMI_BACKEND_URL,PULUMI_HOME,PODFLEET_ENV_KEPT",
        "PODFLEET_ENV_KEPT": '{"PULUMI_BACKEND_URL": "s3://mine"}',
    }
    command = [sys.executable, "-m", "podfleet.cli", "env", "prod"]
    shown = subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True, check=True).stdout
    assert "export PULUMI_BACKEND_URL=s3://mine\n" in shown
    assert "unset PULUMI_HOME\n" in shown
    assert "unset PODFLEET_ENV_KEPT\n" in shown


def test_scale_to_nothing_needs_no_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is down must not keep pods running; there is nothing to choose."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.prod.yaml").write_text(f"{PROD}  podfleet:bootstrap: none\n  podfleet:pods: 2\n")
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\n")
    asked: list[tuple[str, ...]] = []

    class Deployment:
        def resize(self, slots: tuple[str, ...], *, decision: str) -> None:
            asked.append(slots)

    monkeypatch.setattr(sizing, "ready", lambda stack: Workspace(tmp_path, stack))
    monkeypatch.setattr(sizing, "healed", lambda _workspace: nullcontext(Deployment()))
    sizing.scale("prod", 0)
    sizing.scale("prod", 3)
    assert asked == [(), ("slot-01", "slot-02", "slot-03")]
    with pytest.raises(PodfleetError):  # one of two: which is idle, only the queue knows
        sizing.scale("prod", 1)
