"""The life of one pod: boot, run, restart when it exits, end. Started by `cloud`, one task per pod."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from localcloud import environment
from localcloud.containers import Container, Plan, Reports
from localcloud.events import EventLog
from localcloud.facts import Facts, Texts
from localcloud.faultkinds import RUN
from localcloud.faults import INSIDE, Fault, FaultTable, Phase, wait_out
from localcloud.model import Pod, Status, at_least
from localcloud.podlog import PodLog
from localcloud.processes import resolve

BOOT = "pods.boot"
MAX_BACKOFF_DOUBLINGS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a pod stands on: the cloud's settings as they are now, its secrets, its books, its verdicts."""

    facts: Callable[[], Facts]
    secret_values: Callable[[], Mapping[str, str]]
    events: EventLog
    faults: FaultTable
    path: str
    now_s: Callable[[], float]
    exited: Callable[[Pod, str], None]
    gone: Callable[[Pod], None]
    pull_s: Callable[[Pod], float]


class BootEnds(Exception):
    """The pod does not come to run; the text is for its system log."""


class BootFailed(BootEnds):
    """... and is in ERROR."""


class BootExited(BootEnds):
    """... and is EXITED."""


class BootStuck(BootEnds):
    """... and is shown as RUNNING all the same."""


class Life:
    """Carries a pod from PROVISIONING to RUNNING and keeps it there until it is stopped."""

    def __init__(self, pod: Pod, log: PodLog, ground: Ground) -> None:
        self._pod = pod
        self._log = log
        self._ground = ground
        self._container: Container | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble: asyncio.Task[None] | None = None
        self._stale_s: float | None = None

    def begin(self, *, after: "asyncio.Task[None] | None" = None, boot: bool = True) -> None:
        """Start to live, once an earlier life of the same pod is over; without `boot` on a host that it has."""
        self._task = asyncio.ensure_future(self._run(after, boot))
        self._task.add_done_callback(self._report_crash)

    def cancel(self) -> None:
        """From now on nothing changes the pod's state; `stop` must follow."""
        for task in (self._task, self._trouble):
            if task:
                task.cancel()

    async def stop(self, grace_s: float) -> None:
        """End the processes and the disk."""
        self.cancel()
        if self._task:
            await asyncio.wait([self._task])
        if self._container:
            await self._container.stop(grace_s)
            await self._container.wipe()
        self._pod.pid = None
        self._pod.release_ports()

    def meet_trouble(self) -> None:
        """Ask whether a fault strikes the pod as it runs."""
        if self._pod.running_since_s is None or (self._trouble and not self._trouble.done()):
            return
        fault = self._ground.faults.hit(RUN, INSIDE, self._pod.name)
        if fault:
            self._trouble = asyncio.ensure_future(self._suffer(fault))
            self._trouble.add_done_callback(self._report_crash)

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
        except BootStuck as stuck:
            self._get_stuck(str(stuck))
        except BootExited as exited:
            self._ground.exited(self._pod, str(exited))
        except BootFailed as failed:
            self._fail(str(failed))
        except OSError as error:
            self._fail(f"error creating container: {error}")

    async def _boot(self) -> None:
        half_s = self._ground.facts().boot_s / 2
        await self._gate("before")
        await asyncio.sleep(half_s)
        self._become(Status.STARTING)
        self._log.add("system", f"create container {self._pod.request.image}")
        self._check_login()
        await self._gate("after")
        await self._pull()
        await asyncio.sleep(half_s)
        fault = self._ground.faults.hit(BOOT, INSIDE, self._pod.name)
        if fault:
            await self._misboot(fault)
        self._check_driver()

    async def _pull(self) -> None:
        wait_s, image = self._ground.pull_s(self._pod), self._pod.request.image
        if wait_s > 0:
            self._log.add("system", f"pulling image {image}")
            await asyncio.sleep(wait_s)
            self._log.add("system", f"pulled image {image}")

    def _check_driver(self) -> None:
        facts, has = self._ground.facts(), self._pod.cuda_version
        wanted = facts.cuda_of_image(self._pod.request.image) if self._pod.request.gpu else None
        if wanted and not at_least(has, wanted):
            raise BootStuck(facts.texts.driver_too_old.format(cuda=wanted))

    def _check_login(self) -> None:
        """A private image is pulled with a registry login or not at all."""
        facts, request = self._ground.facts(), self._pod.request
        if request.registry is None and facts.needs_registry(request.image):
            raise BootFailed(facts.texts.pull_denied.format(image=request.image))

    async def _gate(self, phase: Phase) -> None:
        fault = self._ground.faults.hit(BOOT, phase, self._pod.name)
        if fault:
            await wait_out(fault)
            if fault.action in ("status", "drop"):
                raise BootFailed(fault.detail or "error creating container: host failure")

    async def _misboot(self, fault: Fault) -> None:
        texts = self._ground.facts().texts
        if fault.action == "slow-pull":
            await asyncio.sleep(fault.delay_s)
        elif fault.action == "null":
            raise BootStuck(fault.detail or "")
        elif fault.action == "driver-old":
            raise BootStuck(fault.detail or texts.driver_too_old.format(cuda=self._newer_cuda()))
        elif fault.action == "exited":
            raise BootExited(fault.detail or texts.exited_by_service)
        elif fault.action == "secret-missing":
            raise BootFailed(fault.detail or _missing(texts, environment.first_reference(self._pod.request)))
        else:
            raise BootFailed(fault.detail or texts.host_failure)

    def _newer_cuda(self) -> str:
        """What an image could want that this host has not."""
        major, minor = (int(part) for part in self._pod.cuda_version.split("."))
        return f"{major}.{minor + 1}"

    async def _suffer(self, fault: Fault) -> None:
        """Host death, preemption, a restart with other ports."""
        container, texts = self._container, self._ground.facts().texts
        if fault.action == "port-change":
            self._stale_s = fault.delay_s
            if container:
                await container.end_process()
            return
        await asyncio.sleep(fault.delay_s)
        if self._task:
            self._task.cancel()
        if fault.action == "preempt":
            if container:
                await container.stop(self._ground.facts().spot_grace_s)
            self._ground.exited(self._pod, fault.detail or texts.exited_by_service)
            return
        if container:
            await container.stop(0)
        if fault.action == "host-gone":
            self._ground.gone(self._pod)
        else:
            self._fail(fault.detail or texts.host_failure)

    async def _run_container(self) -> None:
        """One container from the clean disk to its exit."""
        pod, ground = self._pod, self._ground
        container = Container(pod.root, pod.request.private_ports("tcp"))
        self._container = container
        await container.prepare()
        pod.tcp_ports = container.tcp_ports
        pid = await container.start(self._plan(), self._reports(), ground.facts().ssh_s)
        self._show_running(pid)
        self._log.add("system", "start container")
        ground.events.add("pod.started", pod_id=pod.id, name=pod.name, pid=pid, ssh_port=pod.ssh_port)
        self.meet_trouble()
        code = await container.wait()
        pod.pid, pod.running_since_s = None, None
        self._log.add("system", f"container exited with code {code}")
        ground.events.add("pod.exited", pod_id=pod.id, name=pod.name, rc=code)
        await container.stop(0)
        pod.release_ports()

    def _show_running(self, pid: int) -> None:
        pod, facts, now_s = self._pod, self._ground.facts(), self._ground.now_s()
        stale_s = facts.stale_port_s if self._stale_s is None else self._stale_s
        self._become(Status.RUNNING)
        pod.pid, pod.running_since_s, pod.runtime_at_s = pid, now_s, now_s + facts.runtime_lag_s
        pod.stale_until_s = now_s + stale_s if pod.last_ports else 0.0
        pod.starts += 1
        self._stale_s = None

    def _plan(self) -> Plan:
        pod, facts = self._pod, self._ground.facts()
        base = environment.base_env(str(pod.root), self._ground.path, facts.image_env)
        env = environment.pod_env(pod, base, self._ground.secret_values())
        if isinstance(env, environment.MissingSecret):
            raise BootFailed(_missing(facts.texts, env))
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

    def _become(self, status: Status) -> None:
        self._pod.become(status, self._ground.now_s())

    def _get_stuck(self, text: str) -> None:
        if text:
            self._log.add("system", text)
        self._become(Status.RUNNING)
        self._pod.stuck = True
        self._ground.events.add("pod.stuck", pod_id=self._pod.id, name=self._pod.name, detail=text)

    def _fail(self, text: str) -> None:
        self._log.add("system", text)
        self._become(Status.ERROR)
        self._ground.events.add("pod.failed", pod_id=self._pod.id, name=self._pod.name, detail=text)

    def _report_crash(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            log.error("the life of pod %s broke off", self._pod.id, exc_info=error)
            self._fail(f"error creating container: {error!r}")


def _missing(texts: Texts, what: environment.MissingSecret) -> str:
    return texts.secret_missing.format(secret=what.secret, variable=what.variable)


def _ignore(_: object) -> None:
    """Make a callback of something that returns a value."""
