"""Waiting for a pod that SSH can reach: running, port 22 mapped, host key known. The core of `PodReachable`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from podfleet.errors import PodFailed, ProviderError
from podfleet.providers.runpod.census import Census, Snapshot
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.drain import LOG_TAIL, find_host_key
from podfleet.providers.runpod.ending import Watch
from podfleet.providers.runpod.ssh_port import answers
from podfleet.providers.runpod.wire import LogLine, PodView, SshAddress
from podfleet.ready import driver_problem, last_words

log = structlog.get_logger()
SYSTEM_TAIL = 20
MOST_POLLS = 8
DRIVER_LOOK_S = 30.0  # between two looks into the log of a pod without a container


class ReadsLogs(Protocol):
    """The part of the client that is needed here."""

    def pod_logs(self, pod_id: str, *, source: str, tail: int, wait_s: float) -> list[LogLine]: ...


@dataclass(frozen=True, slots=True)
class Reachable:
    """Where to connect, and the key that must answer there (an authorized_keys line)."""

    host: str
    port: int
    host_key: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the stack says: a tighter deadline of `up --wait` (0: none), and the CUDA version that a host must have."""

    boot_deadline_s: float = 0.0
    min_cuda_version: str = ""


@dataclass(slots=True)
class LogPace:
    """When one pod's log is read next: for its key after one poll, two, four, at most MOST_POLLS; for its driver."""

    next_s: float = 0.0
    polls: int = 1
    driver_s: float | None = None

    def put_off(self, now_s: float, poll_interval_s: float) -> None:
        self.next_s = now_s + self.polls * poll_interval_s
        self.polls = min(2 * self.polls, MOST_POLLS)


class ReachableCore:
    """All waiters share the census: one list per poll interval for the whole fleet."""

    def __init__(
        self,
        client: ReadsLogs,
        census: Census,
        engine: Watch,
        clock: Clock,
        limits: Limits | None = None,
        ssh_answers: Callable[[SshAddress], bool] = answers,
    ) -> None:
        self._client = client
        self._census = census
        self._engine = engine
        self._clock = clock
        self._limits = limits or Limits()
        self._ssh_answers = ssh_answers

    def wait(self, pod_id: str, *, deadline_s: float) -> Reachable:
        """Raises PodFailed, with its last log lines, for a pod that has failed, is gone, is late, or never will run."""
        started_s = self._clock.monotonic_s()
        deadline_s = min(deadline_s, self._limits.boot_deadline_s or deadline_s)
        snapshot: Snapshot | None = None
        status, pace = "not listed", LogPace()
        while True:
            self._engine.require(f"waiting for pod {pod_id}")
            snapshot = self._census.next_poll(snapshot)
            pod = snapshot.find(pod_id)
            if pod is None and self._census.absent([pod_id], since_s=started_s):
                raise PodFailed(f"pod {pod_id} is gone: somebody ended it, or it ended itself", pod_id=pod_id)
            if pod:
                status = pod.status
                if not pod.live:
                    raise PodFailed(f"pod {pod_id} is {status}{self._last_words(pod_id)}", pod_id=pod_id)
                if found := self._reach(pod, pace):
                    return found
                if _no_container(pod):
                    self._require_driver(pod, pace)
            if self._clock.monotonic_s() - started_s >= deadline_s:
                late = f"pod {pod_id} could not be reached within {deadline_s:.0f} s ({status}); it still costs money"
                raise PodFailed(f"{late}{self._last_words(pod_id)}", pod_id=pod_id)

    def _reach(self, pod: PodView, pace: LogPace) -> Reachable | None:
        """A log is read when sshd answers, and then less and less often: each read is a call of the account's."""
        if pod.status != "RUNNING" or pod.ssh is None or self._clock.monotonic_s() < pace.next_s:
            return None
        if not self._ssh_answers(pod.ssh):
            return None
        pace.put_off(self._clock.monotonic_s(), self._census.poll_interval_s)
        try:
            lines = self._client.pod_logs(pod.id, source="container", tail=LOG_TAIL, wait_s=5.0)
        except ProviderError as error:
            log.warning("pod.logs_failed", pod_id=pod.id, reason=str(error))
            return None
        host_key = find_host_key(lines)
        return Reachable(pod.ssh.host, pod.ssh.port, host_key) if host_key else None

    def _require_driver(self, pod: PodView, pace: LogPace) -> None:
        """A host whose driver is too old is billed for ever and never runs the image: no deadline helps.

        Its version may say so, else its log, once the pod has been without a container for more than a moment.
        """
        now_s, system_log = self._clock.monotonic_s(), list[str]()
        if pace.driver_s is None:
            pace.driver_s = now_s + self._census.poll_interval_s / 2
        elif now_s >= pace.driver_s:
            pace.driver_s = now_s + DRIVER_LOOK_S
            system_log = self._system_log(pod.id)
        if problem := driver_problem(pod.cuda_version, system_log, self._limits.min_cuda_version):
            raise PodFailed(f"pod {pod.id} is of no use: {problem}; it still costs money", pod_id=pod.id)

    def _system_log(self, pod_id: str) -> list[str]:
        try:
            lines = self._client.pod_logs(pod_id, source="system", tail=SYSTEM_TAIL, wait_s=3.0)
        except ProviderError:
            return []
        return [line.text for line in lines]

    def _last_words(self, pod_id: str) -> str:
        return last_words(self._system_log(pod_id))


def _no_container(pod: PodView) -> bool:
    return pod.status == "RUNNING" and not pod.has_runtime
