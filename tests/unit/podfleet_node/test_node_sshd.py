"""When a pod starts its own sshd, and with what. The programs are scripts that write down how they were called."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from podfleet_node import sshd
from podfleet_node.paths import Paths

PUBLIC_KEY = "ssh-ed25519 AAAAC3operator podfleet-local"
KEYGEN = """#!/bin/sh
echo made >>"{log}"
while [ $# -gt 1 ]; do case $1 in -f) file=$2;; -C) comment=$2;; esac; shift; done
echo private >"$file"; echo "ssh-ed25519 AAAAC3host $comment" >"$file.pub"
"""
SSHD = """#!/bin/sh
echo "$@" >"{log}"; env >>"{log}"
"""


class Programs:
    """A PATH with stand-ins for ssh-keygen and sshd."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls, self.made = folder / "bin", folder / "calls", folder / "made"
        self.bin.mkdir()

    def add(self, name: str, script: str, log: Path) -> None:
        file = self.bin / name
        file.write_text(script.format(log=log))
        file.chmod(0o755)

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "PUBLIC_KEY": PUBLIC_KEY, "RUNPOD_API_KEY": "canary", **more}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    monkeypatch.setattr(sshd, "SEPARATION_DIR", tmp_path / "run-sshd")
    found = Programs(tmp_path)
    found.add("ssh-keygen", KEYGEN, found.made)
    found.add("sshd", SSHD, found.calls)
    return found


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root")


def test_it_makes_a_host_key_and_serves_the_operators_key_alone(programs: Programs, paths: Paths) -> None:
    child = sshd.start(programs.environ(), paths, port=2222)
    assert child is not None
    child.wait(10)
    config = (paths.root / "etc/ssh/podfleet_sshd_config").read_text()
    authorized = paths.root / "etc/ssh/podfleet_authorized_keys"
    assert paths.host_key_file.read_text() == "ssh-ed25519 AAAAC3host podfleet-node\n"
    assert authorized.read_text() == f"{PUBLIC_KEY}\n"
    assert stat.S_IMODE(authorized.stat().st_mode) == 0o600
    for line in ("Port 2222", "PasswordAuthentication no", f"AuthorizedKeysFile {authorized}"):
        assert line in config.splitlines()


def test_sshd_gets_no_key_of_the_pod(programs: Programs, paths: Paths) -> None:
    child = sshd.start(programs.environ(), paths)
    assert child is not None
    child.wait(10)
    assert "canary" not in programs.calls.read_text()


def test_a_host_key_of_ours_is_kept_over_a_stop_and_start(programs: Programs, paths: Paths) -> None:
    for _ in range(2):
        child = sshd.start(programs.environ(), paths)
        assert child is not None
        child.wait(10)
    assert programs.made.read_text() == "made\n"


def test_where_somebody_else_serves_ssh_it_stays_away(programs: Programs, paths: Paths) -> None:
    paths.host_key_file.parent.mkdir(parents=True)
    paths.host_key_file.write_text("ssh-ed25519 AAAAC3theirs localcloud\n")
    assert sshd.start(programs.environ(), paths) is None
    assert not programs.made.exists()


@pytest.mark.parametrize("key", ["", "null", "  "])
def test_without_a_key_there_is_no_sshd(programs: Programs, paths: Paths, key: str) -> None:
    assert sshd.start(programs.environ(PUBLIC_KEY=key), paths) is None


def test_without_the_program_there_is_no_sshd(programs: Programs, paths: Paths) -> None:
    assert sshd.start(programs.environ(PATH="/nonexistent"), paths) is None


def test_a_failure_is_told_and_never_raised(
    programs: Programs, paths: Paths, capfd: pytest.CaptureFixture[str]
) -> None:
    programs.add("ssh-keygen", "#!/bin/sh\nexit 1\n", programs.made)
    assert sshd.start(programs.environ(), paths) is None
    assert '"sshd.failed"' in capfd.readouterr().err
