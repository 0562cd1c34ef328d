"""The launcher's process, as an engine sees it: port on stdout, calls at once, Cancel, the end. No engine is needed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2, struct_pb2
from launcher_providers import Patient
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2 as wire
from pulumi.runtime.proto.provider_pb2_grpc import ResourceProviderStub

from localcloud.testing import wait_until
from podfleet import launcher
from podfleet.errors import ConfigError
from podfleet.launcher.host import workers_from

SCRIPT = Path(launcher.__file__).with_name("pulumi-resource-pulumi-python")
URN = "urn:pulumi:t::podfleet::pulumi-python:dynamic:Patient::"
PROVIDER = serialize_provider(Patient())


def properties(**values: Any) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update({"__provider": PROVIDER, **values})
    return message


@dataclass
class Started:
    """A launcher with this test as its engine."""

    process: subprocess.Popen[str]
    stub: ResourceProviderStub
    engine: socket.socket
    folder: Path

    def create(self, name: str) -> Any:
        return self.stub.Create(wire.CreateRequest(urn=URN + name, properties=properties(name=name)), timeout=40)

    def begun(self, number: int) -> None:
        wait_until(lambda: len(list(self.folder.glob("begun-*"))) == number, what=f"{number} creates")

    def ended(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("ended-*"))

    def go(self) -> None:
        (self.folder / "go").touch()

    def die(self) -> None:
        """As an engine that is killed: its end of stdin and its port close."""
        assert self.process.stdin
        self.process.stdin.close()
        self.engine.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    engine = socket.create_server(("127.0.0.1", 0))
    python_path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [str(SCRIPT), f"127.0.0.1:{engine.getsockname()[1]}"],
        env={**os.environ, "PULUMI_PYTHON_CMD": sys.executable, "PYTHONPATH": python_path, "PULUMI_PROJECT": "p"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    channel = grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}")
    found = Started(process, ResourceProviderStub(channel), engine, tmp_path)
    config = struct_pb2.Struct()
    config.update({"p:folder": str(tmp_path)})
    found.stub.Configure(wire.ConfigureRequest(args=config), timeout=10)
    yield found
    channel.close()
    engine.close()
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream
        stream.close()


def test_pulumi_yaml_names_the_folder_and_the_script_can_be_run() -> None:
    root = Path(__file__).parents[3]
    (named,) = yaml.safe_load((root / "Pulumi.yaml").read_text())["plugins"]["providers"]
    assert named["name"] == "pulumi-python"
    assert os.access(root / named["path"] / SCRIPT.name, os.X_OK)


def test_64_creates_at_once_and_what_only_computes_waits_for_none(started: Started) -> None:
    with ThreadPoolExecutor(70) as callers:
        answers = [callers.submit(started.create, f"n{number}") for number in range(70)]
        started.begun(64)
        olds, news = properties(name="a"), properties(name="b")
        diff = started.stub.Diff(wire.DiffRequest(id="x", urn=URN + "x", olds=olds, news=news), timeout=5)
        assert diff.changes == wire.DiffResponse.DIFF_SOME
        assert started.stub.Check(wire.CheckRequest(urn=URN, olds=olds, news=news), timeout=5).inputs["name"] == "b"
        started.go()
        made = [answer.result() for answer in answers]
    assert sorted(each.id for each in made) == sorted(f"id-n{number}" for number in range(70))
    assert rpc.deserialize_properties(made[0].properties) == {"name": "n0", "made": True, "__provider": PROVIDER}


def test_cancel_is_heard_at_once_and_ends_all_that_waits(started: Started) -> None:
    with ThreadPoolExecutor(66) as callers:
        answers = [callers.submit(started.create, f"n{number}") for number in range(65)]
        answers.append(callers.submit(started.create, "finishing"))
        started.begun(64)
        started.stub.Cancel(empty_pb2.Empty(), timeout=5)
        wait_until(lambda: sum(answer.done() for answer in answers) >= 64, what="the end of those that wait")
        started.go()
        errors = [error for answer in answers if (error := answer.exception())]
    assert {error.code() for error in errors} == {grpc.StatusCode.UNKNOWN}
    assert all(error.details().startswith("interrupted (the update was cancelled)") for error in errors)
    assert started.ended() in (["ended-finishing"], [])
    with pytest.raises(grpc.RpcError, match="not done: creating later"):
        started.create("later")


def test_a_create_that_has_to_be_finished_is(started: Started) -> None:
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(started.create, "finishing")
        started.begun(1)
        started.stub.Cancel(empty_pb2.Empty(), timeout=5)
        started.process.send_signal(signal.SIGINT)
        started.go()
        assert answer.result().id == "id-finishing"
    assert started.process.wait(10) == 0


def test_without_its_engine_it_finishes_what_it_must_and_goes(started: Started) -> None:
    with ThreadPoolExecutor(2) as callers:
        answers = [callers.submit(started.create, name) for name in ("finishing", "waiting")]
        started.begun(2)
        started.die()
        with pytest.raises(grpc.RpcError, match="the engine is gone"):
            answers[1].result(10)
        assert started.process.poll() is None
        started.go()
        assert started.process.wait(10) == 0
    assert started.ended() == ["ended-finishing"]


def test_a_closed_stdin_alone_is_no_dead_engine(started: Started) -> None:
    assert started.process.stdin
    started.process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(0.6)
    started.go()
    assert started.create("n").id == "id-n"


def test_idle_it_goes_as_soon_as_the_engine_says_so(started: Started) -> None:
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(5) == 0


def test_an_error_of_ours_is_its_line_and_a_mistake_has_its_kind(started: Started) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        started.create("refused")
    assert caught.value.details() == "nothing is free"  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as caught:
        started.create("broken")
    assert caught.value.details() == "ZeroDivisionError: a mistake"  # type: ignore[attr-defined]


def test_read_answers_inputs_too_and_nothing_for_what_is_gone(started: Started) -> None:
    found = started.stub.Read(wire.ReadRequest(id="x", urn=URN + "x", properties=properties(name="n")), timeout=5)
    assert (found.id, found.properties["seen"], found.inputs["name"]) == ("x", True, "as it is")
    assert found.inputs["__provider"] == PROVIDER
    gone = started.stub.Read(wire.ReadRequest(id="gone", urn=URN + "x", properties=properties(name="n")), timeout=5)
    assert not gone.id
    assert not gone.HasField("properties")


def test_only_pods_can_be_read_without_a_provider(started: Started) -> None:
    with pytest.raises(grpc.RpcError, match="dynamic:Patient cannot be imported by its id"):
        started.stub.Read(wire.ReadRequest(id="x", urn=URN + "x", properties=struct_pb2.Struct()), timeout=5)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1025", "6.5", "٣"])
def test_a_wrong_number_of_workers_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"PODFLEET_DYNAMIC_WORKERS is .* 1 to 1024"):
        workers_from({"PODFLEET_DYNAMIC_WORKERS": text})


def test_workers_are_64_unless_told_otherwise() -> None:
    assert workers_from({}) == 64
    assert workers_from({"PODFLEET_DYNAMIC_WORKERS": "7"}) == 7


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"PODFLEET_LAUNCHER": "mine"}, "PODFLEET_LAUNCHER is 'mine': it can be own or stock"),
        ({"PODFLEET_DYNAMIC_WORKERS": "x"}, "PODFLEET_DYNAMIC_WORKERS is 'x': it can be 1 to 1024"),
    ],
)
def test_a_wrong_choice_is_one_line_and_exit_2(env: dict[str, str], line: str) -> None:
    words = {**os.environ, "PULUMI_PYTHON_CMD": sys.executable, **env}
    done = subprocess.run([str(SCRIPT)], env=words, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, line, "")
