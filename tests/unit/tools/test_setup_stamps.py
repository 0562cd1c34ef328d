"""What is current is left alone; what it was made from counts, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from provision.places import Places, find_places
from provision.stamps import current, digest
from provision.venv import ensure_venv, venv_key
from setup_fakes import program


@pytest.mark.parametrize("file", ["requirements/dev.lock", "pyproject.toml", "node/pyproject.toml"])
def test_a_changed_input_changes_the_key_of_the_environment(places: Places, file: str) -> None:
    before = venv_key(places)
    (places.root / file).write_text("something else")
    assert venv_key(places) != before


def test_another_place_or_python_changes_the_key_of_the_environment(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = venv_key(places)
    moved = places.root.rename(tmp_path / "moved")
    assert venv_key(replace(places, root=moved)) != before
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert venv_key(replace(places, root=moved.rename(places.root))) != before


def test_a_digest_sees_where_one_part_ends(tmp_path: Path) -> None:
    assert digest("ab", "c") != digest("a", "bc")
    (tmp_path / "one").write_text("x")
    before = digest(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    assert digest(tmp_path) != before


def test_a_missing_stamp_is_not_current(tmp_path: Path) -> None:
    assert not current(tmp_path / "stamp", "key")


def fake_uv(places: Places) -> Path:
    """A uv that writes down its calls, and makes a Python that says what ours says."""
    (places.root / "requirements" / "bootstrap.lock").write_text("uv==0.13.9\n")
    calls = places.root / "calls"
    python = places.venv / "bin" / "python"
    program(
        places,
        "uv",
        f'echo "$@" >>"{calls}"\n'
        'case "$1" in\n'
        '--version) echo "uv 0.13.9";;\n'
        f'venv) /bin/mkdir -p "{python.parent}"; /bin/ln -sf "{sys.executable}" "{python}";;\n'
        "esac",
    )
    return calls


def test_the_environment_is_made_once_and_mended_when_the_lock_changes(places: Places) -> None:
    calls = fake_uv(places)
    assert ensure_venv(places)
    made = calls.read_text()
    assert f"--require-hashes {places.root / 'requirements' / 'dev.lock'}" in made
    assert f"--editable {places.root} --editable {places.root / 'node'}" in made
    assert not ensure_venv(places)
    assert calls.read_text() == made
    (places.root / "requirements" / "dev.lock").write_text("another==1\n")
    assert ensure_venv(places)
    assert calls.read_text().count("venv --clear") == 1, "the same Python: the environment itself stays"


def test_a_failed_sync_is_tried_again_the_next_time(places: Places) -> None:
    fake_uv(places)
    ensure_venv(places)
    (places.root / "requirements" / "dev.lock").write_text("another==1\n")
    program(places, "uv", '[ "$1" = --version ] && echo "uv 0.13.9" || exit 1')
    for _ in range(2):
        with pytest.raises(Exception, match="uv pip sync failed"):
            ensure_venv(places)


def test_a_home_that_cannot_be_written_moves_the_cache_into_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, so that no folder can be made in it")
    found = find_places(tmp_path, {"HOME": str(tmp_path / "home")})
    assert found.cache == tmp_path / ".podfleet" / "cache" / "podfleet"
    assert found.env["XDG_CACHE_HOME"] == str(tmp_path / ".podfleet" / "cache")
