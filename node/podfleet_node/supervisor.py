"""PID 1 of a pod: `podfleet-node run`. Standard library only, and light: it outlives everything else here.

Three roles, in the order of their importance: a fuse thread that ends the pod whatever happens; a loop that starts,
watches and reaps the worker; a control endpoint for those who log in. It never just exits while requests to end the pod
are set: an exit is a restart that costs money.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any

from podfleet_node import selfstop, sshd
from podfleet_node.control import ControlServer
from podfleet_node.farewell import say_farewell
from podfleet_node.files import read_json
from podfleet_node.lifecycle import StopReason
from podfleet_node.limits import Limits
from podfleet_node.lines import Phase, host_key_line, phase_line, say
from podfleet_node.link import Command, Event, Lines, encode
from podfleet_node.logs import emit
from podfleet_node.paths import Paths
from podfleet_node.watchdog import Pulse, Verdict, restart_wait_s, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

TICK_S = 0.5
FUSE_TICK_S = 1.0
TERM_WORKER_S = 3.8  # of the 5 s that a pod gets after SIGTERM
TERM_FAREWELL_S = 0.4
END_WORKER_S = 20.0
FUSE_GRACE_S = 40.0
CRASH_FORGOTTEN_S = 600.0
FAILURES = frozenset({StopReason.SMOKE_TEST, StopReason.SETTINGS, StopReason.WORKER_CRASHED})

WORKER_ENV = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "USER"})
WORKER_ENV_PREFIXES = ("PODFLEET_", "LC_", "LD_", "PYTHON", "CUDA", "NVIDIA_", "HF_", "OMP_")
SECRET_ENV = frozenset({"PODFLEET_SELF_STOP"})
SECRET_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def worker_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What the worker and its engine may see: no provider key, no tailnet key, no request that ends the pod."""
    return {
        name: value
        for name, value in environ.items()
        if (name in WORKER_ENV or name.startswith(WORKER_ENV_PREFIXES))
        and name not in SECRET_ENV
        and not name.endswith(SECRET_ENDINGS)
    }


class Supervisor:
    """One per container. Methods of `control.Actions` are called from threads; all others from the main loop."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._paths = Paths(Path(environ.get("PODFLEET_ROOT") or "/"))
        self._limits = self._read_limits()
        self._booted_at_s = time.monotonic()
        self._started = not self._limits.wait_for_start
        self._ending: StopReason | None = None
        self._ending_text = ""
        self._ending_at_s = 0.0
        self._released = threading.Event()
        self._terminated = threading.Event()
        self._stop_seen = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._worker_heard_at_s: float | None = None
        self._worker_killed_at_s: float | None = None
        self._worker_born_at_s = 0.0
        self._restart_at_s = 0.0
        self._crashes = 0
        self._worker_released = True
        self._events_fd = -1
        self._lines = Lines()
        self._snapshot: dict[str, Any] = {}
        self._draining_until_s: float | None = None
        self._drained: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._host_key_said = False
        self._sshd: subprocess.Popen[bytes] | None = None
        self._control: ControlServer | None = None
        self._wake_in, self._wake_out = socket.socketpair()

    # The life of the pod

    def run(self) -> int:
        """Until the pod is ended from outside (0), or there is nobody to ask for its end (0, or 1 after a failure)."""
        self._listen_to_signals()
        threading.Thread(target=self._fuse, name="fuse", daemon=True).start()
        try:
            self._set_up()
            return self._loop()
        except Exception:  # noqa: BLE001 - the outermost loop of PID 1: leaving it would restart the container
            emit("supervisor.failed", level="error", error=traceback.format_exc())
            return self._last_stand()
        finally:
            if self._control is not None:
                self._control.close()
            if self._sshd is not None:
                self._sshd.terminate()

    def _set_up(self) -> None:
        self._sshd = sshd.start(self._environ, self._paths)
        self._say_host_key()
        say(phase_line(Phase.STARTING, "waiting for start" if not self._started else "worker"))
        self._control = ControlServer(self, self._paths.control_file)
        try:
            self._control.start()
        except OSError as err:
            self._end(StopReason.SETTINGS, f"cannot write below the root folder: {type(err).__name__}")

    def _loop(self) -> int:
        while True:
            self._wait_for_news()
            self._reap()
            self._say_host_key()
            if self._terminated.is_set():
                return self._leave()
            if self._ending is not None:
                self._finish_worker()
                if self._released.is_set() and not self._limits.self_stop:
                    return 1 if self._ending in FAILURES else 0
            elif self._started and self._worker is None and time.monotonic() >= self._restart_at_s:
                self._spawn()

    def _last_stand(self) -> int:
        """Without its loop a pod is good for nothing but its own end, which the fuse asks for."""
        self._end(StopReason.WORKER_CRASHED, "supervisor failed")
        self._signal_worker(signal.SIGKILL)
        self._worker_released = False
        self._last_words(5.0)
        self._released.set()
        while self._limits.self_stop:
            if self._terminated.wait(TICK_S):
                return 0
        return 1

    def _leave(self) -> int:
        """SIGTERM: the worker releases what it holds; whatever it cannot do in time is said here, by one heartbeat."""
        deadline_s = time.monotonic() + TERM_WORKER_S
        self._signal_worker(signal.SIGTERM)
        while self._worker is not None and time.monotonic() < deadline_s:
            self._wait_for_news(0.05)
            self._reap()
        self._signal_worker(signal.SIGKILL)
        self._last_words(TERM_FAREWELL_S)
        emit("node.left", reason=self._ending or StopReason.TERMINATED)
        return 0

    def _finish_worker(self) -> None:
        if self._released.is_set():
            return
        if self._worker is not None:
            if time.monotonic() - self._ending_at_s > END_WORKER_S:
                self._signal_worker(signal.SIGKILL)
            return
        self._last_words(5.0)
        self._released.set()

    def _last_words(self, timeout_s: float) -> None:
        if not self._worker_released:
            self._worker_released = say_farewell(self._paths.identity_file, timeout_s=timeout_s)

    def _end(self, reason: StopReason, text: str = "") -> None:
        """The pod's reasons have ended; the first reason stays. Called by the loop and by the fuse."""
        with self._changed:
            if self._ending is not None:
                return
            self._ending_at_s, self._ending_text, self._ending = time.monotonic(), text, reason
            self._changed.notify_all()
        phase = Phase.FAILED if reason in FAILURES else Phase.STOPPING
        say(phase_line(phase, text or reason.value.replace("_", " ")))
        emit("node.ending", reason=reason)
        self._wake()

    # The fuse: a thread of its own, so that a stuck loop cannot keep a pod alive

    def _fuse(self) -> None:
        """A fuse has no failure of its own: what goes wrong in it is logged, and it goes on."""
        while not self._terminated.is_set():
            try:
                self._watch_and_ask()
            except Exception:  # noqa: BLE001 - the outermost loop of this thread; without it the pod has no fuse
                emit("fuse.failed", level="error", error=traceback.format_exc())
                self._terminated.wait(FUSE_TICK_S)
            else:
                return

    def _watch_and_ask(self) -> None:
        """Until the end has come and is asked for; comes back when it is terminated, or has nobody to ask."""
        while self._ending is None:
            done, reason = verdict(self._limits, self._pulse())
            if done is Verdict.END and reason is not None:
                self._end(reason)
                self._signal_worker(signal.SIGTERM)
            elif done is Verdict.KILL_WORKER:
                emit("worker.silent", level="error")
                self._worker_heard_at_s, self._worker_killed_at_s = None, time.monotonic()
                self._signal_worker(signal.SIGKILL)
            if self._terminated.wait(FUSE_TICK_S):
                return
        self._released.wait(FUSE_GRACE_S)
        if self._limits.self_stop:
            selfstop.keep_asking(self._limits.self_stop, self._environ, wait=self._terminated.wait)

    def _pulse(self) -> Pulse:
        return Pulse(
            now_s=time.time(),
            monotonic_s=time.monotonic(),
            booted_at_s=self._booted_at_s,
            started=self._started,
            worker_heard_at_s=self._worker_heard_at_s,
            worker_killed_at_s=self._worker_killed_at_s,
            crashes_in_a_row=self._crashes,
        )

    # The worker

    def _spawn(self) -> None:
        events_in, events_out = os.pipe()
        os.set_blocking(events_in, False)
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "podfleet_node", "worker", "--events-fd", str(events_out)],
            stdin=subprocess.PIPE,
            pass_fds=(events_out,),
            env=worker_env(self._environ),
        )
        os.close(events_out)
        self._events_fd, self._lines = events_in, Lines()
        self._worker_born_at_s = self._worker_heard_at_s = time.monotonic()
        self._worker_killed_at_s = None
        self._worker_released = False
        emit("worker.started", pid=self._worker.pid)
        if self._draining_until_s is not None:
            self._command(Command.DRAIN, deadline_s=max(0.0, self._draining_until_s - time.monotonic()))

    def _reap(self) -> None:
        """Collect every child that ended: as PID 1 also those that others left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker is not None and pid == self._worker.pid:
                self._worker.returncode = os.waitstatus_to_exitcode(status)
                self._worker_gone(self._worker.returncode)

    def _worker_gone(self, returncode: int) -> None:
        self._read_events()
        os.close(self._events_fd)
        if self._worker is not None and self._worker.stdin is not None:
            self._worker.stdin.close()
        with self._changed:
            self._worker, self._events_fd = None, -1
            self._worker_heard_at_s = self._worker_killed_at_s = None
            self._changed.notify_all()
        if self._ending is not None or self._terminated.is_set():
            return
        if self._restart_at_s == float("inf"):  # it asked for a new one itself
            self._restart_at_s = 0.0
            return
        lived_s = time.monotonic() - self._worker_born_at_s
        self._crashes = 1 if lived_s >= CRASH_FORGOTTEN_S else self._crashes + 1
        self._restart_at_s = time.monotonic() + restart_wait_s(self._crashes)
        emit("worker.crashed", level="error", returncode=returncode, crashes_in_a_row=self._crashes)

    def _signal_worker(self, number: int) -> None:
        worker = self._worker
        if worker is None or worker.returncode is not None:
            return
        try:
            os.kill(worker.pid, number)
        except ProcessLookupError:
            return

    def _command(self, command: Command, **fields: Any) -> None:
        worker = self._worker
        if worker is None or worker.stdin is None:
            return
        try:
            os.write(worker.stdin.fileno(), encode({"command": command, **fields}))
        except (OSError, ValueError):  # it has just ended, and its stdin with it
            emit("worker.deaf", level="error", command=command)

    # News: signals, children, events of the worker

    def _listen_to_signals(self) -> None:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)

    def _on_stop(self, *_: object) -> None:
        """Once: a second signal inside `Event.set` would wait for a lock that this very thread holds."""
        if not self._stop_seen:
            self._stop_seen = True
            self._terminated.set()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\0")
        except OSError:
            return

    def _wait_for_news(self, timeout_s: float = TICK_S) -> None:
        watched = [self._wake_out.fileno(), *([self._events_fd] if self._events_fd >= 0 else [])]
        ready, _, _ = select(watched, [], [], timeout_s)
        if self._wake_out.fileno() in ready:
            self._wake_out.recv(4096)
        if self._events_fd in ready and not self._read_events():
            self._wait_for_exit()

    def _wait_for_exit(self) -> None:
        """The worker closed its pipe and is about to end: without this the loop would spin until it has."""
        time.sleep(0.02)

    def _read_events(self) -> bool:
        """Handle all that is there; False at the end of the pipe."""
        while True:
            try:
                chunk = os.read(self._events_fd, 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            for message in self._lines.feed(chunk):
                self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        self._worker_heard_at_s = time.monotonic()
        event = message.pop("event", None)
        if event == Event.BEAT:
            self._snapshot = message
        elif event == Event.ACCEPTED:
            self._crashes = 0
        elif event == Event.RELEASED:
            self._worker_released = True
        elif event == Event.RESTART:
            self._restart_at_s = float("inf")
        elif event == Event.DRAINED:
            with self._changed:
                self._drained = message
                self._changed.notify_all()
        elif event == Event.END:
            self._end(StopReason(message.get("reason", StopReason.TERMINATED)), str(message.get("text", "")))

    def _say_host_key(self) -> None:
        """As soon as the key is there; who logs in pins it."""
        if self._host_key_said:
            return
        path = Path(self._limits.host_key_file) if self._limits.host_key_file else self._paths.host_key_file
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        self._host_key_said = True
        say(host_key_line(text))

    def _read_limits(self) -> Limits:
        return Limits.read(self._environ, read_json(self._paths.settings_file) or {})

    # Actions of the control endpoint

    def status(self) -> dict[str, Any]:
        """What the node does now; the worker's part is as old as its last beat."""
        worker = self._worker
        heard_at_s = self._worker_heard_at_s
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._booted_at_s, 1),
            "started": self._started,
            "draining": self._draining_until_s is not None,
            "ending": self._ending,
            "ending_text": self._ending_text,
            "worker_pid": worker.pid if worker else None,
            "worker_heard_s_ago": round(time.monotonic() - heard_at_s, 1) if heard_at_s else None,
            "crashes_in_a_row": self._crashes,
            "worker": self._snapshot if worker else {},
        }

    def start(self) -> dict[str, Any]:
        """Begin to work; a second call changes nothing."""
        self._limits = self._read_limits()
        self._started = True
        self._wake()
        return {"started": True}

    def reload(self) -> dict[str, Any]:
        """New limits at once; the worker takes the rest."""
        self._limits = self._read_limits()
        self._command(Command.RELOAD)
        return {"reloaded": True}

    def drain(self, deadline_s: float | None) -> dict[str, Any]:
        """Wait for the worker's answer; a worker that is not there holds nothing."""
        wait_s = self._limits.drain_deadline_s if deadline_s is None else deadline_s
        self._drained = None
        self._draining_until_s = time.monotonic() + wait_s
        say(phase_line(Phase.DRAINING))
        self._command(Command.DRAIN, deadline_s=wait_s)
        with self._changed:
            self._changed.wait_for(self._drain_is_over, timeout=wait_s + 20.0)
            answer = self._drained
        if answer is not None:
            return answer
        return {"drained": self._worker is None, "released": 0, "finished": 0}

    def _drain_is_over(self) -> bool:
        nobody = self._worker is None and (not self._started or self._ending is not None)
        return self._drained is not None or nobody


def run(environ: Mapping[str, str]) -> int:
    """`podfleet-node run`."""
    return Supervisor(environ).run()
