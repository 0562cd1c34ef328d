"""The verbs: few, each with a line of its own, none forgotten; and locks that know what they were made from."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import locks
from setup_fakes import PROJECT
from verbs import verbs

MAKEFILE = (PROJECT / "Makefile").read_text()


def test_every_verb_is_listed_and_they_are_few() -> None:
    listed = [name for name, _ in verbs(MAKEFILE)]
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert listed == phony[1].split()
    assert len(listed) <= 15
    assert {"demo", "test", "check", "bench", "chaos", "lock", "docs", "clean"} <= set(listed)


def test_the_set_up_assumes_no_program_beyond_coreutils() -> None:
    recipes = "\n".join(line for line in MAKEFILE.splitlines() if line.startswith("\t"))
    assert not re.search(r"\b(sed|awk|grep|curl|find|xargs|tar|pip)\b", recipes)


def test_clean_keeps_what_a_running_fleet_is_known_by(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    for name in (".podfleet/state/a", ".podfleet/passphrase", ".podfleet/demo/b", ".venv/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        ".podfleet",
        ".podfleet/passphrase",
        ".podfleet/state",
        ".podfleet/state/a",
        "Makefile",
    ]


def copy_inputs(target: Path) -> Path:
    for file in ("pyproject.toml", "node/pyproject.toml"):
        (target / file).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / file, target / file)
    shutil.copytree(PROJECT / "requirements", target / "requirements")
    return target


def test_a_new_dependency_makes_a_lock_stale_and_a_lint_setting_does_not(tmp_path: Path) -> None:
    root = copy_inputs(tmp_path)
    before, project = locks.inputs(root), root / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 100"))
    assert locks.inputs(root) == before
    project.write_text(project.read_text().replace("dependencies = [", 'dependencies = [\n  "left-pad",', 1))
    assert [name for name, key in locks.inputs(root).items() if key != before[name]] == ["dev.lock"]
