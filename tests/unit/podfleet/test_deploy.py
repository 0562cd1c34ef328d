"""What the engine said, as lines for people; and the stack file after a refused `up`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation as auto
from pulumi.automation import CommandResult

from podfleet.deploy import Deployment
from podfleet.errors import STALE, EngineError, StackLocked, StaleGeneration
from podfleet.workspace import Workspace

FILE = "config:\n  podfleet:pods: 2 # a person's note\n"
LOCKED = "the stack is currently locked by 1 lock(s).\n  x.json: created by me@host (pid 77) at 2026-01-01T00:00:00Z"


class Stack:
    """The engine's door as the Automation API has it; `up` fails with what it is told to."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = self
        self.env_vars: dict[str, str] = {}
        self.edits: list[dict[str, Any]] = []
        self.told = ""
        self.refreshed: bool | None = None
        self.during: Callable[[], object] = lambda: None
        self.failure: Exception | None = None
        self.resources: list[dict[str, Any]] | None = None
        self._file = workspace.stack_file

    def export_stack(self) -> auto.Deployment:
        state = {} if self.resources is None else {"resources": self.resources}
        return auto.Deployment(version=3, deployment=state)

    def set_all_config_json(self, _stack: str, text: str) -> None:
        self.edits.append(json.loads(text))
        self._file.write_text("config:\n  podfleet:pods: 3\n")

    def up(self, *, refresh: bool | None, **_more: Any) -> None:
        self.told, self.refreshed = self.env_vars["PODFLEET_EXPECT_GENERATION"], refresh
        self.during()
        if self.failure:
            raise self.failure


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text(FILE)
    found = Stack(Workspace(tmp_path, "local"))
    monkeypatch.setattr(auto, "select_stack", lambda **_: found)
    return found


@pytest.fixture
def deployment(stack: Stack, tmp_path: Path) -> Deployment:
    return Deployment(Workspace(tmp_path, "local"), {}, show=lambda _: None)


def failed(stderr: str, kind: type[auto.CommandError] = auto.CommandError) -> auto.CommandError:
    return kind(CommandResult(stdout="", stderr=stderr, code=1))


def test_size_and_slots_are_one_edit(stack: Stack, deployment: Deployment) -> None:
    deployment.resize(("slot-01", "slot-03"), decision="why", expect_generation="g1")
    (edit,) = stack.edits
    assert edit["podfleet:pods"]["value"] == "2"
    assert edit["podfleet:slots"]["objectValue"] == ["slot-01", "slot-03"]
    assert stack.told == "g1"


def test_a_persons_up_expects_no_generation(stack: Stack, deployment: Deployment) -> None:
    deployment.resize(("slot-01",), decision="why", expect_generation="g1")
    deployment.up()
    assert stack.told == ""


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (failed(f"error: Exception calling application: {STALE}"), StaleGeneration, "look again"),
        (failed(LOCKED, auto.ConcurrentUpdateError), StackLocked, r"another update .*\(pid 77 on host\)"),
    ],
)
def test_a_refused_up_leaves_the_stack_file_as_it_was(
    stack: Stack, deployment: Deployment, tmp_path: Path, failure: Exception, kind: type[Exception], said: str
) -> None:
    stack.failure = failure
    with pytest.raises(kind, match=said):
        deployment.resize(("slot-01",), decision="why")
    assert (tmp_path / "stacks" / "Pulumi.local.yaml").read_text() == FILE


def test_an_up_that_failed_half_way_keeps_the_wish(stack: Stack, deployment: Deployment, tmp_path: Path) -> None:
    stack.failure = failed("error: Exception calling application: no room\nerror: update failed\n")
    with pytest.raises(EngineError) as caught:
        deployment.resize(("slot-01",), decision="why")
    assert str(caught.value) == "no room"
    assert (tmp_path / "stacks" / "Pulumi.local.yaml").read_text() != FILE


def test_the_generation_is_what_guard_has_whatever_the_outputs_say(stack: Stack, deployment: Deployment) -> None:
    """An `up` that failed in one pod has changed Guard, and the stack's outputs not."""
    assert deployment.generation() == ""
    outputs = {"type": "pulumi:pulumi:Stack", "outputs": {"generation": "before"}}
    stack.resources = [outputs, {"type": "pulumi-python:dynamic/runpod:Guard", "outputs": {"generation": "after"}}]
    assert deployment.generation() == "after"


def test_the_state_says_which_pod_fills_a_slot(stack: Stack, deployment: Deployment) -> None:
    kind = "pulumi-python:dynamic/runpod:Pod"
    stack.resources = [
        {"type": kind, "id": "pod1", "inputs": {"slot": "slot-01"}},
        {"type": kind, "id": "old", "inputs": {"slot": "slot-02"}, "delete": True},
        {"type": kind, "inputs": {"slot": "slot-03"}},
        {"type": "pulumi-python:dynamic/runpod:Guard", "id": "guard"},
    ]
    assert deployment.pod_ids() == {"slot-01": "pod1"}


def test_a_failed_up_names_the_pods_that_have_failed(stack: Stack, deployment: Deployment) -> None:
    texts = [
        "pod pod1 is ERROR; its system log ends: x",
        "pod pod-2_b could not be reached within 300 s (RUNNING); it still costs money",
        "slot-03: none of 2 candidates could be rented",
    ]
    stack.failure = failed("".join(f"error: Exception calling application: {text}\n" for text in [*texts, texts[0]]))
    with pytest.raises(EngineError) as caught:
        deployment.up(refresh=True)
    assert caught.value.pod_ids == ("pod1", "pod-2_b")
    assert stack.refreshed


def test_an_interrupt_is_raised_after_the_engine_has_finished(stack: Stack, deployment: Deployment) -> None:
    finished = []

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        finished.append("its own way")

    stack.during = interrupted
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        deployment.up()
    assert finished
    assert signal.getsignal(signal.SIGINT) is before
