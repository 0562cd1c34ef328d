"""The launcher by itself: what it hands down, and that its end is the end of the tree."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.localcloud.sessions import SETSID

from localcloud.processes import LAUNCHER
from localcloud.testing import wait_until


def launch(words: str, *, keep_orphans: bool = False) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-S", str(LAUNCHER), str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], env={})
    order = {"argv": ["/bin/sh", "-c", words], "env": {"A": "b"}, "cwd": "/", "keep_orphans": keep_orphans}
    ours.sendall(json.dumps(order).encode() + b"\n")
    return ours, process


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def first_line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout
    return process.stdout.readline().decode().strip()


def end(control: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    control.close()
    process.wait(10)
    if process.stdout:
        process.stdout.close()


def test_the_command_inherits_nothing_but_its_three_streams_and_its_environment() -> None:
    control, process = launch("ls /proc/self/fd | tr '\\n' ' '; echo; env")
    assert first_line(process) == "0 1 2 3"  # 3 is the folder that ls reads
    assert process.stdout
    assert {line.split(b"=")[0] for line in process.stdout} - {b"PWD", b"_", b"SHLVL", b"OLDPWD"} == {b"A"}
    end(control, process)


@pytest.mark.parametrize("unread", [False, True])
def test_a_cloud_that_dies_takes_the_tree_along_also_with_the_launcher_s_word_unread(unread: bool) -> None:
    control, process = launch(f"({SETSID} sleep 605 & echo $!); sleep 606")
    child = int(first_line(process))
    if not unread:
        assert control.recv(100).startswith(b"pid ")
    end(control, process)  # with unread bytes the other side sees a reset, not an end of file
    assert gone(child)


def test_a_session_s_left_overs_stay_until_the_end() -> None:
    control, process = launch("sleep 607 & echo $!; exit 4", keep_orphans=True)
    child = int(first_line(process))
    said = b""
    while b"exit" not in said:
        said += control.recv(100)
    assert said.endswith(b"exit 4\n")
    assert not gone(child)
    end(control, process)
    wait_until(lambda: gone(child), what="end of the left-over")
