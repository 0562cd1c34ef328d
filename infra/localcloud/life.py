"""The life of one pod: boot, run, restart when it exits, end. Started by `cloud`, one task per pod."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from localcloud import environment
from localcloud.containers import Container, Plan, Reports
from localcloud.events import EventLog
from localcloud.facts import Facts
from localcloud.faults import FaultTable, Phase, wait_out
from localcloud.model import Pod, Status
from localcloud.podlog import PodLog
from localcloud.processes import resolve

BOOT = "pods.boot"
MAX_BACKOFF_DOUBLINGS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a pod stands on: the cloud's settings as they are now, its secrets, its books."""

    facts: Callable[[], Facts]
    secret_values: Callable[[], Mapping[str, str]]
    events: EventLog
    faults: FaultTable
    path: str
    now_s: Callable[[], float]


class BootFailed(Exception):
    """The pod goes to ERROR; the text is for its system log."""


class Life:
    """Carries a pod from PROVISIONING to RUNNING and keeps it there until it is stopped."""

    def __init__(self, pod: Pod, log: PodLog, ground: Ground) -> None:
        self._pod = pod
        self._log = log
        self._ground = ground
        self._container: Container | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, *, after: "asyncio.Task[None] | None" = None, boot: bool = True) -> None:
        """Start to live, once an earlier life of the same pod is over; without `boot` on a host that it has."""
        self._task = asyncio.ensure_future(self._run(after, boot))
        self._task.add_done_callback(self._report_crash)

    def cancel(self) -> None:
        """From now on nothing changes the pod's state; `stop` must follow."""
        if self._task:
            self._task.cancel()

    async def stop(self, grace_s: float) -> None:
        """End the processes and the disk."""
        self.cancel()
        if self._task:
            await asyncio.wait([self._task])
        if self._container:
            await self._container.stop(grace_s)
            await self._container.wipe()
        self._pod.pid = None
        self._pod.tcp_ports = {}

    async def _run(self, after: "asyncio.Task[None] | None", boot: bool) -> None:
        if after:
            await asyncio.wait([after])
        try:
            if boot:
                await self._boot()
            while True:
                await self._run_container()
                await asyncio.sleep(self._backoff_s())
                self._log.add("system", "restart container")
                self._ground.events.add("pod.restarted", pod_id=self._pod.id, name=self._pod.name)
        except BootFailed as failed:
            self._fail(str(failed))
        except OSError as error:
            self._fail(f"error creating container: {error}")

    async def _boot(self) -> None:
        half_s = self._ground.facts().boot_s / 2
        await self._gate("before")
        await asyncio.sleep(half_s)
        self._pod.status = Status.STARTING
        self._log.add("system", f"create container {self._pod.request.image}")
        await self._gate("after")
        await asyncio.sleep(half_s)

    async def _gate(self, phase: Phase) -> None:
        fault = self._ground.faults.hit(BOOT, phase, self._pod.name)
        if fault:
            await wait_out(fault)
            if fault.action in ("status", "drop"):
                raise BootFailed(fault.detail or "error creating container: host failure")

    async def _run_container(self) -> None:
        """One container from the clean disk to its exit."""
        pod, ground = self._pod, self._ground
        container = Container(pod.root, pod.request.private_ports("tcp"))
        self._container = container
        await container.prepare()
        pod.tcp_ports = container.tcp_ports
        pid = await container.start(self._plan(), self._reports(), ground.facts().ssh_s)
        pod.pid, pod.status, pod.running_since_s = pid, Status.RUNNING, ground.now_s()
        pod.starts += 1
        self._log.add("system", "start container")
        ground.events.add("pod.started", pod_id=pod.id, name=pod.name, pid=pid, ssh_port=pod.ssh_port)
        code = await container.wait()
        pod.pid, pod.running_since_s = None, None
        self._log.add("system", f"container exited with code {code}")
        ground.events.add("pod.exited", pod_id=pod.id, name=pod.name, rc=code)
        await container.stop(0)
        pod.tcp_ports = {}

    def _plan(self) -> Plan:
        pod, facts = self._pod, self._ground.facts()
        base = environment.base_env(str(pod.root), self._ground.path, facts.image_env)
        env = environment.pod_env(pod, base, self._ground.secret_values())
        if isinstance(env, environment.MissingSecret):
            raise BootFailed(f"error creating container: secret {env.secret} of variable {env.variable} does not exist")
        argv = environment.command_line(pod.request, facts.command_of(pod.request.image))
        impostor = any(part in pod.name for part in facts.ssh_impostor_names)
        return Plan([resolve(argv[0], env["PATH"]), *argv[1:]], env, base, impostor, facts.pod_sees)

    def _reports(self) -> Reports:
        events, pod_id = self._ground.events, self._pod.id
        return Reports(
            line=lambda text: self._log.add("container", text),
            ssh_exec=lambda command: _ignore(events.add("ssh.exec", pod_id=pod_id, command=command)),
            ssh_exit=lambda command, rc: _ignore(events.add("ssh.exit", pod_id=pod_id, command=command, rc=rc)),
        )

    def _backoff_s(self) -> float:
        return float(self._ground.facts().restart_backoff_s * 2 ** min(self._pod.starts - 1, MAX_BACKOFF_DOUBLINGS))

    def _fail(self, text: str) -> None:
        self._log.add("system", text)
        self._pod.status, self._pod.pid, self._pod.running_since_s = Status.ERROR, None, None
        self._ground.events.add("pod.failed", pod_id=self._pod.id, name=self._pod.name, detail=text)

    def _report_crash(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            log.error("the life of pod %s broke off", self._pod.id, exc_info=error)
            self._fail(f"error creating container: {error!r}")


def _ignore(_: object) -> None:
    """Make a callback of something that returns a value."""
