"""PID 1 when things go wrong inside itself; its normal life is in the contract tests."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from podfleet_node import supervisor as module
from podfleet_node import watchdog
from podfleet_node.lifecycle import StopReason
from podfleet_node.link import Event
from podfleet_node.supervisor import Supervisor

STOP = '[{"url": "http://127.0.0.1:9/"}]'


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the cloud is asked for the end."""
    event = threading.Event()

    def keep_asking(_requests: object, _environ: object, *, wait: Callable[[float], bool]) -> None:
        event.set()

    monkeypatch.setattr(module.selfstop, "keep_asking", keep_asking)
    monkeypatch.setattr(module, "FUSE_TICK_S", 0.01)
    monkeypatch.setattr(module, "FUSE_GRACE_S", 0.05)
    return event


def _node(root: Path, **environ: str) -> Supervisor:
    return Supervisor({"PODFLEET_ROOT": str(root), "PODFLEET_SELF_STOP": STOP, **environ})


def test_the_fuse_ends_a_pod_whose_main_loop_is_stuck(tmp_path: Path, asked: threading.Event) -> None:
    stuck = _node(tmp_path, PODFLEET_EXPIRES_AT_S="1")
    threading.Thread(target=stuck._fuse, daemon=True).start()
    assert asked.wait(5)
    assert stuck.status()["ending"] is StopReason.LIFETIME


def test_the_fuse_survives_a_failure_of_its_own(
    tmp_path: Path, asked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = _node(tmp_path, PODFLEET_EXPIRES_AT_S="1")
    tries: list[str] = []

    def signal_worker(_number: int) -> None:
        tries.append("signal")
        raise PermissionError

    monkeypatch.setattr(node, "_signal_worker", signal_worker)
    threading.Thread(target=node._fuse, daemon=True).start()
    assert asked.wait(5)
    assert tries == ["signal"]
    node._terminated.set()


def test_a_killed_worker_that_nobody_reaps_ends_the_pod(
    tmp_path: Path, asked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot die, or the main loop is stuck; here the loop does not even run."""
    monkeypatch.setattr(watchdog, "WORKER_SILENCE_S", 0.05)
    monkeypatch.setattr(watchdog, "KILLED_S", 0.05)
    node = _node(tmp_path)
    node._worker_heard_at_s = time.monotonic()
    threading.Thread(target=node._fuse, daemon=True).start()
    assert asked.wait(5)
    assert node.status()["ending"] is StopReason.WORKER_CRASHED
    node._terminated.set()


def test_a_second_signal_inside_the_first_one_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = _node(tmp_path)
    first = node._terminated.set
    monkeypatch.setattr(node._terminated, "set", lambda: (node._on_stop(), first()))
    node._on_stop()
    assert node._terminated.is_set()


def test_a_host_key_that_is_no_text_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pub").write_bytes(b"\xff\xfe")
    _node(tmp_path, PODFLEET_HOST_KEY_FILE=str(tmp_path / "key.pub"))._say_host_key()
    assert capsys.readouterr().out == ""


def test_a_supervisor_that_fails_asks_for_its_end_and_does_not_exit(
    tmp_path: Path, asked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = _node(tmp_path)
    monkeypatch.setattr(node, "_listen_to_signals", lambda: None)

    def no_more_processes() -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(node, "_spawn", no_more_processes)
    life = threading.Thread(target=node.run, daemon=True)
    life.start()
    assert asked.wait(5)
    assert life.is_alive()
    node._terminated.set()
    life.join(5)
    assert not life.is_alive()


def test_the_first_reason_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = _node(tmp_path)
    node._handle({"event": Event.END, "reason": "empty_queue"})
    node._end(StopReason.LIFETIME)
    assert node.status()["ending"] is StopReason.EMPTY_QUEUE
    assert capsys.readouterr().out == "podfleet-node phase stopping empty queue\n"


def test_a_drain_of_a_node_that_waits_for_its_start_is_over_at_once(tmp_path: Path) -> None:
    node = _node(tmp_path, PODFLEET_WAIT_FOR_START="true")
    assert node.drain(60) == {"drained": True, "released": 0, "finished": 0}


def test_a_later_host_key_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = _node(tmp_path, PODFLEET_HOST_KEY_FILE=str(tmp_path / "key.pub"))
    node._say_host_key()
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me\n")
    node._say_host_key()
    node._say_host_key()
    assert capsys.readouterr().out == "podfleet-node host-key ssh-ed25519 AAAA\n"
