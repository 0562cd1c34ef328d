"""The program: up, down, status, reset, a second up, a taken port, a stale file, and how its children die."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.localcloud.sessions import SETSID

from localcloud.faultkinds import KINDS
from localcloud.testing import RunningCloud, running, wait_until

A4000 = "NVIDIA RTX A4000"
FAST = {"boot_s": 0.0, "ssh_s": 0.0, "grace_s": 0.3}


def localcloud(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "localcloud.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def up(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return localcloud("up", "--dir", str(folder), "--runpod-port", "0", "--tailscale-port", "0", *more)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "a folder"
    yield path
    localcloud("down", "--dir", str(path))


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "localcloud.json").read_text("utf-8"))
    return loaded


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_up_status_reset_down(folder: Path) -> None:
    done = up(folder)
    assert (done.returncode, done.stderr) == (0, "")
    now = state(folder)
    assert f"{now['runpod_url']}/v2" in done.stdout
    assert stat.S_IMODE((folder / "credentials.env").stat().st_mode) == 0o600
    keys = (folder / "credentials.env").read_text("utf-8")
    assert [line.partition("=")[0] for line in keys.splitlines()] == ["RUNPOD_API_KEY", "TAILSCALE_API_KEY"]
    shown = localcloud("status", "--dir", str(folder), "--json")
    assert json.loads(shown.stdout)["pid"] == now["pid"]
    assert "0 pods" in localcloud("status", "--dir", str(folder)).stdout
    assert localcloud("reset", "--dir", str(folder)).returncode == 0
    assert localcloud("down", "--dir", str(folder)).returncode == 0
    wait_until(lambda: gone(now["pid"]), what="end of the daemon")
    assert not (folder / "localcloud.json").exists()
    assert localcloud("down", "--dir", str(folder)).returncode == 0
    assert up(folder).returncode == 0
    assert (folder / "credentials.env").read_text("utf-8") == keys


def test_a_kept_account_is_there_at_the_next_up(folder: Path) -> None:
    up(folder, "--keep")
    localcloud("fault", "add", "list-lag", "--dir", str(folder))
    localcloud("down", "--dir", str(folder))
    up(folder, "--keep")
    assert "list-lag" in localcloud("fault", "list", "--dir", str(folder)).stdout
    localcloud("down", "--dir", str(folder))
    up(folder)
    assert "list-lag" not in localcloud("fault", "list", "--dir", str(folder)).stdout


@pytest.mark.parametrize("line", ["{", "{}}", '{"pods": {"a": {}}}', '{"settings": {"all": {}}}', "[]", '{"pods": 1}'])
def test_a_journal_that_cannot_be_read_is_one_line(folder: Path, line: str) -> None:
    folder.mkdir()
    (folder / "journal.jsonl").write_text(f"{line}\n", "utf-8")
    done = up(folder, "--keep")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"localcloud: cannot read {folder / 'journal.jsonl'} (")
    assert (folder / "journal.jsonl").read_text("utf-8").replace(" ", "") == f"{line}\n".replace(" ", "")


def test_faults_by_command(folder: Path) -> None:
    up(folder)
    where = ("--dir", str(folder))
    options = ("--nth", "2", "--times", "3", "--name", "slot-01", "--probability", "0.5", "--seed", "7", "--delay", "1")
    assert localcloud("fault", "add", "create-hidden", *options, *where).stdout == "f1\n"
    assert localcloud("fault", "add", "hold", "--op", "pods.list", "--phase", "after", *where).stdout == "f2\n"
    rows = json.loads(localcloud("fault", "list", "--json", *where).stdout)
    given = ("kind", "nth", "times", "name_contains", "probability", "seed", "delay_s")
    assert [rows[0][key] for key in given] == ["create-hidden", 2, 3, "slot-01", 0.5, 7, 1.0]
    assert [rows[1][key] for key in ("kind", "op", "phase", "action")] == [None, "pods.list", "after", "hold"]
    shown = localcloud("fault", "list", *where).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["ID", "f1", "f2"]
    assert localcloud("fault", "remove", "f2", *where).returncode == 0
    assert localcloud("fault", "clear", *where).returncode == 0
    assert len(localcloud("fault", "list", *where).stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["add", "no-such"], "there is no fault 'no-such'; kinds: create-then-500, create-then-hang, "),
        (["add", "list-lag", "--nth", "0"], "Invalid value for '--nth'"),
        (["add", "list-lag", "--colour", "red"], "No such option: --colour"),
        (["add", "list-lag", "--op", "pods.get"], "kind list-lag is about pods.list alone"),
        (["add", "hold"], "a fault needs kind, or op and action"),
        (["add", "hold", "--op", "pods.peel"], "op: Input should be '*', 'pods.list', "),
        (["add", "list-lag", "--probability", "7"], "probability: "),
        (["remove", "f9"], "no fault f9"),
        (["explode"], "No such command 'explode'"),
    ],
)
def test_a_wrong_fault_is_one_line(shared_cloud: RunningCloud, words: list[str], line: str) -> None:
    done = localcloud("fault", *words, *(["--dir", str(shared_cloud.folder)] if words[0] != "explode" else []))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("localcloud: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_kind_of_fault_is_listed_in_a_line() -> None:
    lines = localcloud("fault", "kinds").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(KINDS)
    assert all(len(line.split()) > 3 for line in lines)


def test_it_listens_on_loopback_only(folder: Path) -> None:
    up(folder)
    pid = state(folder)["pid"]
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    assert len(listening) == 2
    assert all(address.startswith("0100007F:") for address in listening)


def test_a_second_up_is_one_line_and_harms_nothing(folder: Path) -> None:
    up(folder)
    pid = state(folder)["pid"]
    second = up(folder)
    assert second.returncode == 2
    assert second.stderr.startswith(f"localcloud: already running in {folder} (pid {pid}, http://127.0.0.1:")
    assert second.stderr.count("\n") == 1
    assert state(folder)["pid"] == pid
    assert not gone(pid)


def test_of_two_ups_at_once_one_wins(folder: Path) -> None:
    command = [sys.executable, "-m", "localcloud.cli", "up", "--dir", str(folder)]
    command += ["--runpod-port", "0", "--tailscale-port", "0"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert sum("already running" in error for error in errors) == 1


def test_a_taken_port_is_one_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = localcloud("up", "--dir", str(folder), "--runpod-port", "0", "--tailscale-port", str(port))
    assert done.returncode == 2
    assert (
        done.stderr == f"localcloud: port {port} (the Tailscale API) is in use by another program; choose another one\n"
    )
    assert not (folder / "localcloud.json").exists()


def test_a_stale_file_is_replaced(folder: Path) -> None:
    up(folder)
    old = state(folder)
    os.kill(old["pid"], signal.SIGKILL)
    wait_until(lambda: gone(old["pid"]))
    missing = localcloud("status", "--dir", str(folder))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    done = up(folder)
    assert done.returncode == 0
    assert done.stderr == f"localcloud: replaced a stale localcloud.json of pid {old['pid']}, which is gone\n"
    assert state(folder)["pid"] != old["pid"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--facts", "nowhere.yaml"], "nowhere.yaml"),
        (["--dir", "file"], "cannot keep files in"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    done = localcloud("up", "--runpod-port", "0", "--tailscale-port", "0", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_dies_with_it(tmp_path: Path, number: signal.Signals) -> None:
    words = f"{SETSID} sleep 601 & echo child $!; trap '' TERM; ({SETSID} sh -c 'sleep 602 & sleep 603' &); sleep 604"
    with running(tmp_path / "cloud", pod_command=["/bin/sh", "-c", words], **FAST) as cloud, cloud.client() as api:
        body = {"name": "a", "image": "i", "gpu": {"id": A4000}}
        pods = [api.post("/v2/pods", json=body).json()["id"] for _ in range(2)]
        for pod_id in pods:
            cloud.wait_for_event("pod.started", pod_id=pod_id)
        family = wait_until(lambda: _all_of(pods, at_least=10), what="ten sleepers")
        os.kill(cloud.pid, number)
        wait_until(lambda: all(gone(pid) for pid in family), timeout_s=5, what="end of all children")
        wait_until(lambda: gone(cloud.pid), what="end of the daemon")


def _all_of(pod_ids: list[str], at_least: int) -> list[int]:
    """Processes that have a pod's id in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if any(f"RUNPOD_POD_ID={pod_id}\0" in environ for pod_id in pod_ids):
            found.append(int(path.parent.name))
    return found if len(found) >= at_least else []


def test_a_killed_launcher_takes_its_pod_along_and_the_pod_restarts(tmp_path: Path) -> None:
    with running(tmp_path / "cloud", pod_command=["/bin/sleep", "600"], restart_backoff_s=0.05, **FAST) as cloud:
        with cloud.client() as api:
            pod_id = api.post("/v2/pods", json={"name": "a", "image": "i", "gpu": {"id": A4000}}).json()["id"]
        pid = cloud.wait_for_event("pod.started", pod_id=pod_id)["pid"]
        launcher = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(launcher, signal.SIGKILL)
        cloud.wait_for_event("pod.exited", pod_id=pod_id, rc=137)
        wait_until(lambda: gone(pid), what="end of the pod's process")
        wait_until(lambda: len(cloud.events("pod.started")) == 2, what="restart")


def test_the_event_file_has_what_the_route_shows(tmp_path: Path) -> None:
    with running(tmp_path / "cloud") as cloud:
        rows = [json.loads(line) for line in (cloud.folder / "events.jsonl").read_text("utf-8").splitlines()]
        assert rows == cloud.events()
        with cloud.client() as api:
            api.post("/v2/pods", json={"name": "a", "image": "i", "gpu": {"id": A4000}})
    rows = [json.loads(line) for line in (tmp_path / "cloud" / "events.jsonl").read_text("utf-8").splitlines()]
    assert [row["reason"] for row in rows if row["kind"] == "pod.ended"] == ["down"]
    assert rows[-1]["kind"] == "cloud.stopped"
