"""One drain for many pods at once: each is told over SSH to stop claiming and to finish, all under one deadline.

Called before pods are ended (`ending`). A pod that cannot be told, because it never booted, has no sshd, shows another
host key or we have no key, is not waited for: the SIGTERM of its end makes the node release what it holds.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podfleet.errors import ProviderError
from podfleet.providers.runpod.ssh_port import answers
from podfleet.providers.runpod.stopping import STOPPING
from podfleet.providers.runpod.wire import LogLine, PodView, SshAddress
from podfleet_node.schemas import HOST_KEY_LINE

if TYPE_CHECKING:
    import asyncssh

CONNECT_S = 5.0  # a pod whose node never started must not hold up the others
LOGIN_S = 20.0  # but one that answers may be busy
RELEASE_S = 10.0  # what the node may take after its own deadline to give back the rest
LOG_TAIL = 5000  # the host key is printed at the start: behind it may lie hours of work
LOG_READERS = 8
STOP_LOOK_S = 0.5
LOG_TRIES = 3
DRAINED, DEADLINE_PASSED, NO_NODE = 0, 3, 4  # exit statuses of `podfleet-node drain`
RESULTS = {DRAINED: "drained", DEADLINE_PASSED: "deadline passed", NO_NODE: "no node running"}


@dataclass(frozen=True, slots=True)
class DrainOutcome:
    """What happened to one pod; `told` is False where only the SIGTERM of its end will speak to it."""

    pod_id: str
    told: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Target:
    pod_id: str
    address: SshAddress
    host_key: str


ReadLogs = Callable[[str, int], list[LogLine]]


class Drain:
    """Tells pods to drain. Never raises because of a pod: the end follows in any case, unless we are told to stop."""

    def __init__(
        self,
        read_logs: ReadLogs,
        *,
        private_key: str,
        deadline_s: float,
        ssh_answers: Callable[[SshAddress], bool] = answers,
    ) -> None:
        self._read_logs = read_logs
        self._ssh_answers = ssh_answers
        self._private_key = private_key
        self._deadline_s = deadline_s

    def run(self, pods: Sequence[PodView]) -> list[DrainOutcome]:
        """Blocks until every pod is done or the deadline has passed; addresses are the API's, not the state's."""
        reasons = {pod.id: self._cannot(pod) for pod in pods}
        outcomes = [DrainOutcome(pod_id, told=False, text=reason) for pod_id, reason in reasons.items() if reason]
        reachable = [pod for pod in pods if not reasons[pod.id]]
        if not reachable:
            return outcomes
        with ThreadPoolExecutor(LOG_READERS) as readers:
            found = list(readers.map(STOPPING.passed_on(self._target), reachable))
        outcomes += [target for target in found if isinstance(target, DrainOutcome)]
        targets = [target for target in found if isinstance(target, _Target)]
        outcomes += asyncio.run(self._drain_all(targets)) if targets else []
        STOPPING.check()
        return outcomes

    def _cannot(self, pod: PodView) -> str:
        if self._deadline_s <= 0:
            return "drains are switched off"
        if pod.status != "RUNNING":
            return f"not running ({pod.status})"
        if pod.ssh is None:
            return "no SSH port"
        return "" if self._private_key else "no SSH key in the stack config"

    def _target(self, pod: PodView) -> _Target | DrainOutcome:
        if pod.ssh and not self._ssh_answers(pod.ssh):
            return DrainOutcome(pod.id, told=False, text="no sshd answers")
        reason = "no host key in the log"
        for _ in range(LOG_TRIES):  # a slow answer looks like an empty log
            try:
                host_key = find_host_key(self._read_logs(pod.id, LOG_TAIL))
            except ProviderError as error:
                reason = f"no logs: {error}"
                continue
            if host_key and pod.ssh:
                return _Target(pod.id, pod.ssh, host_key)
        return DrainOutcome(pod.id, told=False, text=reason)

    async def _drain_all(self, targets: Sequence[_Target]) -> list[DrainOutcome]:
        end_s = asyncio.get_running_loop().time() + self._deadline_s
        drains = [asyncio.ensure_future(self._drain_one(target, end_s)) for target in targets]
        while (await asyncio.wait(drains, timeout=STOP_LOOK_S))[1]:
            if STOPPING.interrupts:
                for each in drains:
                    each.cancel()
        return [each.result() for each in drains if not each.cancelled()]

    async def _drain_one(self, target: _Target, end_s: float) -> DrainOutcome:
        import asyncssh  # noqa: PLC0415  (half a second that a preview need not pay)

        try:
            connection = await _connect(target, self._private_key)
            try:
                left_s = max(0.0, end_s - asyncio.get_running_loop().time())
                command = f"podfleet-node drain --deadline-s {math.floor(left_s)}"
                done = await asyncio.wait_for(connection.run(command, check=False), left_s + RELEASE_S)
            finally:
                connection.abort()  # not close(): a host that is gone would be waited for
        except (TimeoutError, OSError, asyncssh.Error) as error:
            return DrainOutcome(target.pod_id, told=False, text=f"SSH: {error or type(error).__name__}")
        except (asyncssh.KeyImportError, ValueError) as error:
            return DrainOutcome(target.pod_id, told=False, text=f"SSH key: {error}")
        return _outcome(target.pod_id, done.exit_status, str(done.stdout or ""))


def _outcome(pod_id: str, code: int | None, stdout: str) -> DrainOutcome:
    """The node answers by its exit status, and in JSON with what became of its jobs."""
    text = f"exit status {code}" if code is None else RESULTS.get(code, f"exit status {code}")
    try:
        counts = json.loads(stdout)
        text += f", {counts['finished']} finished, {counts['released']} given back"
    except (ValueError, KeyError, TypeError):
        pass
    return DrainOutcome(pod_id, told=code in (DRAINED, DEADLINE_PASSED), text=text)


async def _connect(target: _Target, private_key: str) -> asyncssh.SSHClientConnection:
    import asyncssh  # noqa: PLC0415

    key, host_key = asyncssh.import_private_key(private_key), asyncssh.import_public_key(target.host_key)
    where = (target.address.host, target.address.port)
    sock = await asyncio.to_thread(socket.create_connection, where, CONNECT_S)
    try:
        return await asyncio.wait_for(
            asyncssh.connect(
                sock=sock,
                username=target.address.username,
                client_keys=[key],
                known_hosts=([host_key], [], []),
                agent_path=None,
                config=None,
            ),
            LOGIN_S,
        )
    except BaseException:
        sock.close()
        raise


def find_host_key(lines: Sequence[LogLine]) -> str:
    """The last host key that the entrypoint printed (a restarted container has a new one); empty if none."""
    for line in reversed(lines):
        if line.text.startswith(HOST_KEY_LINE):
            return line.text.removeprefix(HOST_KEY_LINE).strip()
    return ""
