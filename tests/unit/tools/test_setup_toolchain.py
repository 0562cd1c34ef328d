"""Plugins, engine folder and `toolchain.json`: real plugins where they can be had, else stand-ins."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from provision.engine import Engine
from provision.errors import SetupError, Unreachable
from provision.places import Places
from provision.plugins import ensure_plugins, pack
from provision.toolchain import ensure_engine_folder, write_toolchain
from setup_fakes import PROJECT, program


def fake_pulumi(places: Places, offline: bool) -> tuple[Path, Path]:
    """A pulumi that "installs" a plugin by making its folder; without network only from a file. And its calls."""
    calls = places.root / "plugin-calls"
    refuse = '[ "$6" = --file ] || { echo "error: no network"; exit 255; }' if offline else ""
    made = program(
        places,
        "pulumi",
        f'echo "$PULUMI_HOME $@" >>"{calls}"\n{refuse}\n/bin/mkdir -p "$PULUMI_HOME/plugins/resource-$4-v$5"',
    )
    return made, calls


@pytest.mark.parametrize(
    ("choice", "built", "offline", "expected"),
    [
        ("auto", True, False, "standin"),
        ("auto", False, False, "real"),
        ("auto", False, True, "standin"),
        ("real", True, False, "real"),
        ("standin", False, False, "standin"),
    ],
)
def test_which_plugins_are_used(places: Places, choice: str, built: bool, offline: bool, expected: str) -> None:
    pulumi, calls = fake_pulumi(places, offline)
    places = replace(places, env={**places.env, "PODFLEET_PLUGINS": choice})
    found = Engine(pulumi, "v3.259.0", built)
    assert ensure_plugins(places, found) == expected
    first = calls.read_text()
    assert all(line.startswith(f"{places.pulumi_home} plugin install") for line in first.splitlines())
    assert ensure_plugins(places, found) == expected
    assert calls.read_text() == first, "what is there is left alone, and nothing is asked again"


def test_real_plugins_that_cannot_be_fetched_are_an_error_when_asked_for(places: Places) -> None:
    pulumi, _ = fake_pulumi(places, offline=True)
    places = replace(places, env={**places.env, "PODFLEET_PLUGINS": "real"})
    with pytest.raises(Unreachable, match=r"HTTPS_PROXY .*no network"):
        ensure_plugins(places, Engine(pulumi, "v3.259.0", built=False))


def test_an_unknown_choice_of_plugins_names_the_known_ones(places: Places) -> None:
    places = replace(places, env={**places.env, "PODFLEET_PLUGINS": "fake"})
    with pytest.raises(SetupError, match="auto, real, standin"):
        ensure_plugins(places, Engine(Path("pulumi"), "v3.259.0", built=True))


def test_a_packed_stand_in_starts_from_a_path_with_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "a plugin home"
    python = tmp_path / "an environment" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(pack("command", PROJECT / "tools" / "standins", python))) as archive:
        for entry in archive:
            archive.extract(entry, folder)
    started = subprocess.run([folder / "pulumi-resource-command", "1.2.3.4:5"], capture_output=True, check=True)
    assert started.stdout.decode().strip() == f"-u {folder}/command.py 1.2.3.4:5"
    assert {file.name for file in folder.iterdir()} >= {"command.py", "standin.py", "pulumi_protos.py"}


def test_an_engine_of_ours_gets_a_folder_with_a_language_host(places: Places) -> None:
    cached = places.engines / "key" / "bin"
    cached.mkdir(parents=True)
    (cached / "pulumi").write_text("v1")
    built = Engine(cached / "pulumi", "v3.259.0", built=True)
    pulumi = ensure_engine_folder(places, built)
    write_toolchain(places, built, pulumi, "standin")
    assert (pulumi.parent / "pulumi-language-python").stat().st_mode & 0o111
    assert pulumi.samefile(cached / "pulumi")
    assert json.loads((places.local / "toolchain.json").read_text()) == {
        "path": [str(places.venv / "bin"), str(places.local / "bin")],
        "pulumi": str(places.local / "bin" / "pulumi"),
        "pulumi_version": "3.259.0",
        "engine": "built",
        "plugins": "standin",
        "pulumi_home": str(places.local / "pulumi-home"),
    }


def test_an_installed_engine_gets_nothing_of_ours_on_path(places: Places) -> None:
    (places.local / "bin").mkdir(parents=True)
    (places.local / "bin" / "pulumi-language-python").touch()
    found = Engine(Path("/opt/pulumi/pulumi"), "v3.270.0", built=False)
    write_toolchain(places, found, ensure_engine_folder(places, found), "real")
    told = json.loads((places.local / "toolchain.json").read_text())
    assert told["path"] == [str(places.venv / "bin")]
    assert told["pulumi"] == "/opt/pulumi/pulumi"
    assert not (places.local / "bin").exists()


def test_an_old_python_is_told_in_one_line() -> None:
    script = str(PROJECT / "tools" / "bootstrap.py")
    code = f"import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0); runpy.run_path({script!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("set-up: error: Python 3.11 or newer is needed,")
    assert "is Python 3.9;" in done.stderr
    assert done.stderr.count("\n") == 1
