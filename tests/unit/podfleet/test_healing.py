"""What may be put right without asking: whose lock is dead, which processes are left over, which copy of a state."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podfleet import healing, processes
from podfleet.errors import StackLocked, StateUnreadable
from podfleet.healing import Healing, holders_in, look_times, mend
from podfleet.processes import Holder, Process, end, leftovers, look, why_not_dead
from podfleet.state import StateFolder, StateView, state_folder, view_of
from podfleet.workspace import Workspace

HERE = "this-host"
LOCK = Holder(pid=77, host=HERE, since_s=1000.0)
SLEEPS = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("holder", "seen", "why"),
    [
        (LOCK, None, ""),
        (LOCK, Process(77, 1, "firefox", started_at_s=1003.0), ""),
        (LOCK, Process(77, 1, "firefox", started_at_s=1001.0), "process 77 (firefox) is there"),
        (LOCK, Process(77, 1, "firefox", started_at_s=900.0), "process 77 (firefox) is there"),
        (LOCK, Process(77, 1, "firefox", started_at_s=None), "process 77 (firefox) is there"),
        (LOCK, Process(77, 1, "pulumi", started_at_s=900.0), "it is running"),
        (LOCK, Process(77, 1, "pulumi", started_at_s=1003.0), "it is running"),  # clocks jump; engines are spared
        (Holder(77, "other-host", 1000.0), None, "it runs on other-host, which cannot be seen from here"),
    ],
)
def test_a_holder_is_dead_only_where_that_is_proven(holder: Holder, seen: Process | None, why: str) -> None:
    assert why_not_dead(holder, host=HERE, seen=seen) == why


def test_a_process_is_seen_until_it_is_gone() -> None:
    before_s = time.time()
    child = subprocess.Popen([sys.executable, "-c", SLEEPS])
    try:
        seen = look(child.pid)
        assert seen is not None
        assert seen.parent == os.getpid()
        assert seen.started_at_s is not None
        assert abs(seen.started_at_s - before_s) < 2
    finally:
        child.kill()
    child_is_dead = lambda: look(child.pid) is None  # noqa: E731
    give_up_s = time.monotonic() + 10
    while not child_is_dead() and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert child_is_dead(), "one that only waits to be collected is dead"
    child.wait()
    assert child_is_dead()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Any]:
    """Start something that looks like a provider process, told the address of an engine."""
    started: list[subprocess.Popen[bytes]] = []

    def start(address: str, *, stack: str = "a", backend: str = "file:///s") -> subprocess.Popen[bytes]:
        env = {**os.environ, "PODFLEET_STACK": stack, "PULUMI_BACKEND_URL": backend}
        words = [sys.executable, "-c", SLEEPS, "pulumi.dynamic", address]
        started.append(subprocess.Popen(words, env=env, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_only_what_has_lost_its_engine_and_is_the_stacks_is_left_over(plugin: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets this port meanwhile
        dead, alive = (f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, engine))
        lost = plugin(dead)
        plugin(alive)
        plugin(dead, stack="b")
        plugin(dead, backend="file:///other")
        marks = {"PODFLEET_STACK": "a", "PULUMI_BACKEND_URL": "file:///s"}
        give_up_s = time.monotonic() + 10
        while not (found := leftovers(marks, folder=tmp_path)) and time.monotonic() < give_up_s:
            time.sleep(0.01)
        assert [process.pid for process in found] == [lost.pid]
        assert end(found) == []
        assert lost.wait(5) < 0
        assert leftovers(marks, folder=tmp_path) == []


def test_without_a_backend_of_its_own_a_stacks_processes_are_those_in_its_folder(plugin: Any, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        plugin(f"127.0.0.1:{closed.getsockname()[1]}")
        marks = {"PODFLEET_STACK": "a"}
        give_up_s = time.monotonic() + 10
        while not (found := leftovers(marks, folder=tmp_path)) and time.monotonic() < give_up_s:
            time.sleep(0.01)
        assert len(found) == 1
        assert leftovers(marks, folder=tmp_path / "elsewhere") == []


def test_the_engines_words_name_the_holders() -> None:
    text = (
        "error: the stack is currently locked by 2 lock(s). Either wait …\n"
        "  s3://bucket/x.json: created by me@host-a (pid 77) at 2026-01-01T00:00:00Z\n"
        "  s3://bucket/y.json: created by CORP\\me@host-b (pid 78) at 2026-01-01T01:00:00+01:00\n"
        "  s3://bucket/z.json: created by me@host-c (pid 79) at never\n"
    )
    assert holders_in(text) == [Holder(77, "host-a", 1767225600.0), Holder(78, "host-b", 1767225600.0)]


# The state


def checkpoint(*resources: dict[str, Any], pending: list[dict[str, Any]] | None = None) -> str:
    latest = {"resources": list(resources), "pending_operations": pending or []}
    return json.dumps({"version": 3, "checkpoint": {"stack": "a", "latest": latest}})


POD = {"type": "pulumi-python:dynamic/runpod:Pod", "id": "pod1", "urn": "u::slot-01", "outputs": {"name": "n-1"}}
GUARD = {
    "type": "pulumi-python:dynamic/runpod:Guard",
    "id": "guard-a",
    "urn": "u::guard",
    "outputs": {"uid": "a-00000001", "wanted": ["n-1"]},
}
ROOT = {"type": "pulumi:pulumi:Stack", "urn": "u::root"}


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    (tmp_path / "stacks" / "p").mkdir(parents=True)
    return StateFolder(tmp_path, "p", "a")


def test_a_state_says_what_it_knows_and_what_is_pending(folder: StateFolder) -> None:
    pending = [{"type": "creating", "resource": {"urn": "urn::x::slot-02", "inputs": {"name": "n-2"}}}]
    folder.checkpoint.write_text(checkpoint(ROOT, GUARD, POD, pending=pending))
    view = folder.read()
    assert view.ids == {"guard-a", "pod1"}
    assert (view.uids, view.wanted, view.names) == ({"a-00000001"}, {"n-1"}, {"n-1"})
    assert (view.pending, view.root) == (("slot-02",), "u::root")


def test_a_packed_state_is_read_as_well(folder: StateFolder) -> None:
    plain = folder.checkpoint
    plain.with_name("a.json.gz").write_bytes(gzip.compress(checkpoint(POD).encode()))
    assert folder.read().ids == {"pod1"}
    plain.with_name("a.json.gz").write_bytes(b"\x1f\x8b no more")
    with pytest.raises(StateUnreadable, match="cannot be read"):
        folder.read()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no state of this stack at"),
        ("", "is empty"),
        ("null", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"checkpoint": null}', "is empty"),
        ('{"version": 3, "checkpoint": {"latest": {"resour', "cannot be read"),
        ('{"checkpoint": {"latest": {"resources": [{}]}}}', "not as the engine writes it"),
        ('{"checkpoint": {"latest": {"resources": ["x"]}}}', "not as the engine writes it"),
    ],
)
def test_a_state_that_is_none_is_never_an_empty_one(folder: StateFolder, content: str | None, said: str) -> None:
    if content is not None:
        folder.checkpoint.write_text(content)
    with pytest.raises(StateUnreadable, match=said):
        folder.read()


def test_a_new_stack_has_a_state_that_knows_nothing(folder: StateFolder) -> None:
    folder.checkpoint.write_text('{"version": 3, "checkpoint": {"stack": "a", "latest": null}}')
    assert folder.read() == view_of({})


def test_a_broken_state_is_put_back_from_the_newest_copy_that_is_whole(folder: StateFolder) -> None:
    backups = folder.folder / "backups" / "p" / "a"
    backups.mkdir(parents=True)
    (backups / "a.1.json").write_text(checkpoint())
    (backups / "a.2.json").write_text(checkpoint(GUARD))
    bak = folder.checkpoint.with_name("a.json.bak")
    bak.write_text("{")
    for age_s, file in ((300, backups / "a.1.json"), (200, backups / "a.2.json"), (100, bak)):
        os.utime(file, (time.time() - age_s,) * 2)
    folder.checkpoint.write_bytes(b"")
    (folder.checkpoint.parent / "a.json.attrs").touch()
    assert "is empty: put back the copy of " in mend(folder)
    assert folder.read().uids == {"a-00000001"}
    assert not (folder.checkpoint.parent / "a.json.attrs").exists()
    assert len(list(folder.checkpoint.parent.glob("a.json.broken-*"))) == 1
    assert mend(folder) == "", "once is enough"


def test_a_broken_state_without_a_copy_is_left_as_it_is(folder: StateFolder) -> None:
    folder.checkpoint.write_bytes(b"{")
    with pytest.raises(StateUnreadable, match="and no copy of it can be: remove the file"):
        mend(folder)
    assert folder.checkpoint.read_bytes() == b"{"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("file:///srv/state?metadata=skip", "/srv/state/.pulumi"),
        ("file://~/s", "/home/me/s/.pulumi"),
        ("file://~", "/home/me/.pulumi"),
        ("file://.podfleet/state", "{project}/.podfleet/state/.pulumi"),
        ("s3://bucket", None),
    ],
)
def test_where_the_state_is(tmp_path: Path, url: str, where: str | None) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: p\n")
    workspace = Workspace(tmp_path, "a")
    found = state_folder(workspace, {"PULUMI_BACKEND_URL": url, "HOME": "/home/me"})
    assert (str(found.folder) if found else None) == (where.format(project=tmp_path) if where else None)
    home = tmp_path / "home"
    home.mkdir()
    (home / "credentials.json").write_text(json.dumps({"current": url}))
    assert state_folder(workspace, {"PULUMI_HOME": str(home), "HOME": "/home/me"}) == found, "of `pulumi login`"


# Locks


def locked(folder: StateFolder, *, pid: int, host: str = HERE) -> Path:
    where = folder.folder / "locks" / "organization" / "p" / "a"
    where.mkdir(parents=True, exist_ok=True)
    file = where / "0000.json"
    lock = {"pid": pid, "username": "me", "hostname": host, "timestamp": "2026-01-01T00:00:00.123456789Z"}
    file.write_text(json.dumps(lock))
    return file


@pytest.fixture
def healer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Healing:
    (tmp_path / "Pulumi.yaml").write_text("name: p\n")
    monkeypatch.setattr(processes, "leftovers", lambda *_, **__: [])
    return Healing(Workspace(tmp_path, "a"), {"PULUMI_BACKEND_URL": f"file://{tmp_path}"}, host=HERE)


def test_a_lock_goes_when_its_process_is_dead_and_then_alone(healer: Healing, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = state_folder(healer.workspace, healer.env)
    assert folder is not None
    seen: dict[int, Process] = {78: Process(78, 1, "pulumi", 1.0)}
    monkeypatch.setattr(healing.processes, "look", seen.get)
    for pid, host, why in ((78, HERE, "it is running"), (77, "other", "cannot be seen from here")):
        file = locked(folder, pid=pid, host=host)
        with pytest.raises(StackLocked, match=why):
            healer.heal()
        assert file.exists()
    file = locked(folder, pid=77)
    found = healer.heal()
    assert not file.exists()
    assert "(pid 77) is dead: its lock is removed" in str(found)
    assert found.interrupted_s is not None
    assert healer.heal() == healing.Healed()


def test_a_lock_that_cannot_be_read_is_nobodys_to_remove(healer: Healing) -> None:
    folder = state_folder(healer.workspace, healer.env)
    assert folder is not None
    file = locked(folder, pid=77)
    file.write_text("{")
    with pytest.raises(StackLocked, match="cannot be read: remove it, once no update is running"):
        healer.heal()
    assert file.exists()


def test_the_last_look_is_several_so_that_a_late_pod_is_not_paid_for_until_the_end_of_the_wait() -> None:
    assert look_times(100.0, 60.0, now_s=100.0) == [115.0, 130.0, 145.0, 160.0]
    assert look_times(100.0, 60.0, now_s=131.0) == [145.0, 160.0]
    assert look_times(100.0, 60.0, now_s=500.0) == [160.0], "one look there is in any case"


# A state that is not on this machine's disk


LOCKED = (
    "error: the stack is currently locked by 1 lock(s). Either wait …\n"
    "  s3://b/x.json: created by me@{host} (pid {pid}) at 2026-01-01T00:00:00Z\n"
)


@pytest.fixture
def shared(healer: Healing, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A healing of a state in a bucket: `asked` has what the engine was asked for, `answers` what it says in turn."""
    asked: list[str] = []
    answers: list[str] = []

    def refresh_root(*words: object) -> subprocess.CompletedProcess[str]:
        asked.append("refresh")
        text = answers.pop(0) if answers else ""
        return subprocess.CompletedProcess([], 1 if text else 0, "", text)

    def make(*said: str, by_hand: bool, pending: tuple[str, ...] = ()) -> tuple[Healing, list[str]]:
        answers.extend(said)
        monkeypatch.setattr(healing, "read_state", lambda *_: StateView(root="urn", pending=pending))
        env = {"PULUMI_BACKEND_URL": "s3://b"}
        return Healing(healer.workspace, env, by_hand=by_hand, host=HERE), asked

    monkeypatch.setattr(healing, "refresh_root", refresh_root)
    monkeypatch.setattr(healing, "run_engine", lambda *words: asked.append(str(words[2])))
    monkeypatch.setattr(healing.processes, "look", {78: Process(78, 1, "pulumi", 1.0)}.get)
    return make


def test_a_lock_in_a_bucket_is_removed_by_hand_alone_and_only_where_its_process_is_dead(shared: Any) -> None:
    ours_and_dead = LOCKED.format(host=HERE, pid=77)
    by_itself, asked = shared(ours_and_dead, by_hand=False, pending=("slot-01",))
    with pytest.raises(StackLocked, match="process 77 of this host, which is dead: `podfleet unlock a`"):
        by_itself.heal()
    assert asked == ["refresh"]
    by_hand, asked = shared(ours_and_dead, by_hand=True)
    found = by_hand.heal()
    assert asked[1:] == ["refresh", "cancel", "refresh"]
    assert "(pid 77) is dead: its lock is removed" in str(found)
    assert found.interrupted_s is not None
    for text, why in (
        (LOCKED.format(host=HERE, pid=78), "it is running"),
        (LOCKED.format(host="other", pid=77), "cannot be seen from here"),
        ("[409] Conflict: Another update is currently in progress.", "does not say whose"),
    ):
        by_hand, asked = shared(text, by_hand=True)
        asked.clear()
        with pytest.raises(StackLocked, match=why):
            by_hand.heal()
        assert asked == ["refresh"], "nothing was cancelled"


def test_an_update_that_begins_while_a_lock_is_removed_is_left_alone(shared: Any) -> None:
    by_hand, _ = shared(LOCKED.format(host=HERE, pid=77), LOCKED.format(host=HERE, pid=79), by_hand=True)
    with pytest.raises(StackLocked, match="has begun in this moment"):
        by_hand.heal()


def test_without_anything_pending_no_engine_is_asked(shared: Any) -> None:
    healthy, asked = shared(by_hand=False)
    assert (healthy.heal(), asked) == (healing.Healed(), [])


def test_what_cannot_be_cleared_is_said_and_stops_nothing(shared: Any) -> None:
    pending, _ = shared("error: no passphrase", by_hand=False, pending=tuple(f"slot-{n}" for n in range(6)))
    assert "6 operations were pending (slot-0, slot-1, slot-2, slot-3, …): not cleared" in str(pending.heal())
