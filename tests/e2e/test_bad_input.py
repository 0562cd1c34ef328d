"""Bad input beside a pod that runs: each mistake is one clear line, and nothing is touched. With the real engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.e2e.fleet import DESTROY, REFRESH, UP, Fleet
from tests.e2e.untouched import untouched, written
from tools.stage import STACK, Stage

pytestmark = pytest.mark.engine
WRONG = {
    "podz": 3,
    "pods": "many",
    "cloud": "BOTH",
    "gpuTypes": "NVIDIA L4",
    "diskGb": -1,
    "runpodUrl": "runpod.io",
    "slots": '["slot-1"]',
}
LINES = (
    "podfleet:podz: no such key; did you mean podfleet:pods?",
    "podfleet:pods: input should be a valid integer",
    "podfleet:cloud: input should be 'SECURE', 'COMMUNITY' or 'ALL', not 'BOTH'",
    'podfleet:gpuTypes: has to be a list such as ["a", "b"]',
    "podfleet:diskGb: input should be greater than or equal to 1, not",
    "podfleet:runpodUrl: string should match pattern",
    "podfleet:slots: names like slot-01, each once",
)
REFUSED = "RunPod refuses the key: "


@pytest.fixture(scope="module")
def standing(running_stage: Stage) -> Iterator[Fleet]:
    """One pod that runs, for all tests of this file."""
    fleet = Fleet(running_stage)
    fleet.reset()
    fleet.config(bootstrap="none", pods=1)
    fleet.up()
    yield fleet
    fleet.tear_down()


def one_line(done: subprocess.CompletedProcess[str], *words: str, rc: int = 2) -> None:
    """The command said one line and nothing else, with these words in it."""
    assert done.returncode == rc, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("podfleet: ")
    for word in words:
        assert word in line
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("preview",), UP], ids=["preview", "up"])
def test_every_wrong_key_is_told_at_once_by_the_engine(standing: Fleet, words: tuple[str, ...]) -> None:
    with untouched(standing), written(standing, **WRONG):
        done = standing.stage.pulumi(*words)
    assert done.returncode != 0
    for line in LINES:
        assert f"error: {line}" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("command", ["preview", "up", "status", "destroy"])
def test_every_wrong_key_is_told_at_once_by_podfleet(standing: Fleet, command: str) -> None:
    with untouched(standing), written(standing, **WRONG):
        done = standing.stage.podfleet(command, STACK)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert len(said) == len(LINES)
    assert all(any(line.startswith(f"podfleet: {wish}") for line in said) for wish in LINES)


def test_without_a_uid_the_preview_is_one_line_and_env_finds_the_uid_again(standing: Fleet) -> None:
    uid = str(standing.pods()[0]["env"]["PODFLEET_UID"])
    with untouched(standing), written(standing, uid=None):
        shown = standing.preview(rc=1)
        assert standing.stage.podfleet("env", STACK).returncode == 0
        assert uid in standing.stage.stack_file.read_text(), "another uid would lose the fleet"
    assert {line.split("error: ")[1] for line in shown.splitlines() if "error: " in line} == {
        "podfleet:uid: is not set (run `podfleet env STACK`, which makes it)"
    }


def test_a_uid_copied_from_another_stack_is_refused_everywhere(standing: Fleet) -> None:
    with untouched(standing), written(standing, uid="prod-0a1b2c3d"):
        for command in ("env", "preview", "up", "destroy", "status"):
            done = standing.stage.podfleet(command, STACK)
            one_line(done, "podfleet:uid: 'prod-0a1b2c3d' is not of stack 'local'", "podfleet env local")
        for words in (("preview",), UP):
            done = standing.stage.pulumi(*words)
            assert done.returncode != 0
            assert "error: podfleet:uid: 'prod-0a1b2c3d' is not of stack 'local'" in done.stdout


@pytest.mark.parametrize("words", [("preview",), UP, DESTROY, REFRESH], ids=lambda words: words[0])
def test_a_shell_with_another_stacks_environment_is_refused(standing: Fleet, words: tuple[str, ...]) -> None:
    with untouched(standing):
        done = standing.stage.pulumi(
            *words, env={"PODFLEET_STACK": "prod", "RUNPOD_API_BASE_URL": "http://127.0.0.1:9"}
        )
    assert done.returncode != 0
    assert "this shell has the environment of stack prod, not of local-" in done.stdout
    assert 'run eval "$(podfleet env local)"' in done.stdout


@pytest.mark.parametrize("key", ["", "rpa_of_somebody_else"], ids=["missing", "wrong"])
def test_a_key_that_is_missing_or_wrong_is_one_line(standing: Fleet, key: str) -> None:
    env = {"RUNPOD_API_KEY": key}
    persons = {**standing.stage.env, **env, "PODFLEET_ENV_MADE": ""}
    with untouched(standing):
        for command in ("status", "up", "destroy", "preview"):
            done = standing.stage.podfleet(command, STACK, env=persons)
            one_line(done, REFUSED, "401 " if key else "RUNPOD_API_KEY is empty", "set RUNPOD_API_KEY")
        shown = standing.stage.pulumi(*UP, env=env)
    assert shown.returncode != 0
    assert f"error: {REFUSED}" in shown.stdout
    assert "rpa_of_somebody_else" not in shown.stdout + done.stderr


def test_a_wrong_key_ends_no_pod_and_forgets_none(standing: Fleet) -> None:
    before = standing.pods()[0]["id"]
    done = standing.stage.pulumi(*DESTROY, env={"RUNPOD_API_KEY": "rpa_of_somebody_else"})
    assert done.returncode != 0
    assert f"{REFUSED}401" in done.stdout
    assert [pod["id"] for pod in standing.pods()] == [before]
    standing.up()
    assert [pod["id"] for pod in standing.pods()] == [before]


def test_a_cloud_that_does_not_answer_is_one_line_that_names_it(standing: Fleet) -> None:
    with untouched(standing), written(standing, runpodUrl="http://127.0.0.1:9"):
        for command in ("status", "up"):
            done = standing.stage.podfleet(command, STACK)
            one_line(done, "no answer from RunPod at http://127.0.0.1:9 to GET /pods", rc=1)
        shown = standing.stage.pulumi("preview", env={"RUNPOD_API_BASE_URL": "http://127.0.0.1:9"}).stdout
    said = {line.strip() for line in shown.splitlines() if "127.0.0.1:9" in line}
    assert len({line[line.index("no answer") :] for line in said}) == 1, said


def test_without_an_engine_env_says_what_to_do(standing: Fleet) -> None:
    outer = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")}
    assert standing.stage.podfleet("preview", STACK, env=outer).returncode == 0, "the toolchain's engine is found"
    toolchain = standing.stage.project / ".podfleet" / "toolchain.json"
    text = toolchain.read_text()
    toolchain.unlink()
    try:
        with untouched(standing):
            one_line(standing.stage.podfleet("env", STACK, env=outer), "pulumi is not on PATH: run `make setup`", rc=1)
    finally:
        toolchain.write_text(text)
