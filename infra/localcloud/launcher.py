"""Runs one command as the first process of a pod and takes its whole tree down when asked, or when the cloud dies.

Started by `processes` as `python -I -S launcher.py FD` (standard library only, few modules: one runs per pod). FD is
one end of a socket pair. It reads one JSON line `{"argv","env","cwd","sees","keep_orphans"}`, then single bytes: `t` =
SIGTERM to the command's process group. End of file = kill everything; that is also what a cloud killed with SIGKILL
leaves behind. It writes `pid N`, and `exit RC` (128 + signal) when the command is over.

As in a container, nothing outlives the first process; with `keep_orphans` (SSH sessions) what the command left running
stays until the end of file. On Linux the launcher adopts orphans (child subreaper), so a daemonized grandchild is
found, too; elsewhere only the process group is killed.

A container sees its image and its own disk. Where the kernel has Landlock, so does the command, if the order
names what it `sees`: it may read that, may write below `cwd` and in /dev, and gets EACCES for all else.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
LANDLOCK_VERSION_FLAG = 1
LANDLOCK_PATH_BENEATH = 1
LANDLOCK_REFER_ABI = 2
LANDLOCK_TRUNCATE_ABI = 3
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
ALL_OF_ABI_1 = (1 << 13) - 1
REFER = 1 << 13
TRUNCATE = 1 << 14
LINUX = sys.platform == "linux"


def main() -> None:
    """Start, watch, clean up."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    order = json.loads(_read_line(control))
    wakeup = _wake_on_sigchld()
    libc = ctypes.CDLL(None) if LINUX else None
    if libc:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = _start(order, libc)
    try:
        _let_go_of_output()
        _tell(control, f"pid {pid}")
        _watch(control, wakeup, pid, bool(order["keep_orphans"]))
    finally:
        _kill_all(pid)


def _read_line(control: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = _read(control)
        if not chunk:
            sys.exit(1)
        line += chunk
    return line


def _read(control: int) -> bytes:
    """What the cloud said; nothing when it is gone (a reset: it died with our last word unread)."""
    try:
        return os.read(control, 65536)
    except OSError:
        return b""


def _wake_on_sigchld() -> int:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _start(order: dict[str, object], libc: ctypes.CDLL | None) -> int:
    """The command's id, once it is the command: or else a look at its /proc would find this launcher there."""
    argv, env, cwd = order["argv"], order["env"], order["cwd"]
    replaced, ours = os.pipe()  # both closed by the exec
    pid = os.fork()
    if pid:
        os.close(ours)
        os.read(replaced, 1)
        os.close(replaced)
        return pid
    os.setsid()
    if libc:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(cwd)  # type: ignore[arg-type]
        if libc and "sees" in order:
            _confine(libc, order["sees"], [cwd, "/dev"])  # type: ignore[arg-type, list-item]
        os.execvpe(argv[0], argv, env)  # type: ignore[index, arg-type]  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())  # type: ignore[index]
    os._exit(127)


def _confine(libc: ctypes.CDLL, sees: list[str], writes: list[str]) -> None:
    """This process and its children, from now on. Without Landlock in the kernel nothing happens."""
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION_FLAG)
    if abi < 1:
        return
    everything = ALL_OF_ABI_1 | (REFER if abi >= LANDLOCK_REFER_ABI else 0)
    everything |= TRUNCATE if abi >= LANDLOCK_TRUNCATE_ABI else 0
    handled = ctypes.c_uint64(everything)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return
    for path in sees:
        _allow(libc, ruleset, path, EXECUTE | READ_FILE | READ_DIR)
    for path in writes:
        _allow(libc, ruleset, path, everything)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib would triple the start time
        rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
    rule = rights.to_bytes(8, sys.byteorder) + beneath.to_bytes(4, sys.byteorder)
    libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_PATH_BENEATH, rule, 0)
    os.close(beneath)


def _let_go_of_output() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _tell(control: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(control, text.encode() + b"\n")


def _watch(control: int, wakeup: int, pid: int, keep_orphans: bool) -> None:
    """Return when it is time to kill what is left."""
    alive = True
    while True:
        ready, _, _ = select.select([control, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
            statuses, children_left = _reap()
            if pid in statuses:
                alive = False
                _tell(control, f"exit {_code(statuses[pid])}")
            if not alive and not (keep_orphans and children_left):
                return
        if control in ready:
            orders = _read(control)
            if not orders:
                return
            if alive and b"t" in orders:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)


def _reap() -> tuple[dict[int, int], bool]:
    """Statuses of children that ended, and whether others live."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses, False
        if not pid:
            return statuses, True
        statuses[pid] = status


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _kill_all(group: int) -> None:
    """SIGKILL to every descendant until none is left; orphans come to us, so the loop ends."""
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _reap()[1]:
            return
        time.sleep(0.005)


def _descendants() -> list[int]:
    if not LINUX:
        return []
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would triple the start time
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    ours = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not more:
            return [pid for pid in ours if pid != os.getpid()]
        ours |= more


if __name__ == "__main__":
    main()
