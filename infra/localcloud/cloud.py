"""The account: pods, stock, secrets, money. What the RunPod routes call; every verb commits before it returns.

Processes start and end in the background: a create returns a pod in PROVISIONING, a delete returns while the kill
goes on.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import string
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localcloud import views
from localcloud.account import Account, volume_of
from localcloud.errors import Problem
from localcloud.events import EventLog
from localcloud.facts import Facts, SettingsPatch
from localcloud.faultkinds import RUN
from localcloud.faults import INSIDE, Fault, FaultTable
from localcloud.ledger import Bill, Ledger
from localcloud.life import Ground
from localcloud.lives import Lives
from localcloud.model import Pod, PodRequest, Secret, Status
from localcloud.podlog import PodLog
from localcloud.pulls import Pulls
from localcloud.stock import Spot, Stock

ID_LETTERS = string.ascii_lowercase + string.digits
WATCH_S = 1.0
log = logging.getLogger(__name__)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Cloud:
    """One account with everything in it."""

    def __init__(self, folder: Path, facts: Facts, events: EventLog) -> None:
        self.folder = folder
        self.events = events
        self.faults = FaultTable(events)
        self._initial_facts = facts
        self._serials = itertools.count(1)
        self.keeper: Callable[[], None] | None = None
        self.generation = 0
        self._closed = False
        self._also_reset: list[Callable[[], None]] = []
        self._fill(facts)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", DEFAULT_PATH)])
        ground = Ground(
            facts=lambda: self.facts,
            secret_values=lambda: {secret.name: secret.value for secret in self.secrets.values()},
            events=events,
            faults=self.faults,
            path=path,
            now_s=time.time,
            exited=self._exited,
            gone=lambda pod: self.end(pod.id, "host"),
            pull_s=lambda pod: self.pulls.pull_s(pod, self.facts, time.time()),
        )
        self._lives = Lives(ground)
        self.faults.on_armed = self._on_fault

    def _fill(self, facts: Facts) -> None:
        self.facts = facts
        self.patched: dict[str, Any] = {}
        self.stock = Stock(facts)
        self.pulls = Pulls()
        self.account = Account(facts, self.events)
        self.ledger = Ledger(facts.balance_usd, self.account.storage_usd)
        self.pods: dict[str, Pod] = {}
        self.ended: dict[str, Pod] = {}
        self.logs: dict[str, PodLog] = {}
        self.secrets: dict[str, Secret] = {}
        self._last_change_s = 0.0

    def _on_fault(self, fault: Fault) -> None:
        if fault.op == RUN:
            self._lives.meet_trouble()

    # -- pods -----------------------------------------------------------------------------------------------------
    def create(self, request: PodRequest) -> Pod:
        """Rent a pod. Problem 400 without capacity, 402 without credit."""
        if self._closed:
            raise Problem(503, "the cloud is being shut down or reset")
        spot, now_s = self.stock.find(request), time.time()
        if self.ledger.balance_usd(now_s) < spot.price_usd_per_hr * self.facts.credit_needed_hr:
            raise Problem(402, self.facts.texts.low_balance)
        pod = self._new_pod(request, spot, now_s)
        self._take_in(pod)
        self._miscreate(pod)
        return pod

    def _miscreate(self, pod: Pod) -> None:
        fault = self.faults.hit("pods.create", INSIDE, pod.name)
        if fault and fault.action == "hide":
            pod.hidden_until_s = pod.created_at_s + fault.delay_s
        elif fault:
            with contextlib.suppress(Problem):  # nothing free for a second one
                self._take_in(self._new_pod(pod.request, self.stock.find(pod.request), pod.created_at_s))

    def _new_pod(self, request: PodRequest, spot: Spot, now_s: float) -> Pod:
        pod_id = "".join(secrets.choice(ID_LETTERS) for _ in range(14))
        return Pod(
            id=pod_id,
            serial=next(self._serials),
            request=request,
            price_usd_per_hr=spot.price_usd_per_hr,
            data_center_id=spot.data_center_id,
            cuda_version=spot.cuda_version,
            host=self.stock.take(spot, request),
            created_at_s=now_s,
            root=self.folder / "pods" / pod_id,
            api_key=f"rpa_{secrets.token_hex(20).upper()}",
        )

    def _take_in(self, pod: Pod) -> None:
        self.pods[pod.id] = pod
        self._last_change_s = pod.created_at_s
        self.ledger.open(
            Bill(pod.id, pod.name, pod.request.hardware(), pod.price_usd_per_hr, created_at_s=pod.created_at_s)
        )
        self.events.add(
            "pod.created",
            at_s=pod.created_at_s,
            pod_id=pod.id,
            name=pod.name,
            gpu=pod.request.hardware(),
            price_usd_per_hr=pod.price_usd_per_hr,
            created_at=pod.created_at_s,
        )
        self.logs[pod.id] = PodLog(self._log_file(pod))
        self._lives.begin(pod, self.logs[pod.id])

    def get(self, pod_id: str) -> Pod:
        """A live pod; Problem 404."""
        pod = self.pods.get(pod_id)
        if pod is None or pod.hidden_until_s > time.time():
            raise Problem(404, self.facts.texts.not_found)
        return pod

    def listed(self) -> list[Pod]:
        """The pods that a list shows, oldest first."""
        now_s = time.time()
        seen = views.listed(self.pods.values(), now_s)
        fault = self.faults.hit("pods.list", INSIDE, None)
        if fault is None:
            return seen
        if fault.action == "lose":
            return views.with_holes(seen, fault)
        at_s = now_s - fault.delay_s if fault.action == "lag" else self._last_change_s
        every = sorted((*self.ended.values(), *self.pods.values()), key=lambda pod: pod.serial)
        return views.as_of(every, at_s, now_s, fault)

    def delete(self, pod_id: str, reason: str = "delete") -> None:
        """Terminate, as an owner asks for it: it may come to nothing."""
        pod = self.get(pod_id)
        fault = self.faults.hit("pods.delete", INSIDE, pod.name)
        if fault is None:
            self.end(pod_id, reason)
        elif fault.action == "deny":
            raise Problem(404, self.facts.texts.not_found)

    def end(self, pod_id: str, reason: str) -> None:
        """Terminate: gone from the list and from the bill at once, killed in the background."""
        pod = self.pods[pod_id]
        now_s = time.time()
        if pod.status is not Status.EXITED:
            self.stock.give_back(pod)
        bill = self.ledger.bills[pod.id]
        bill.end(now_s)
        del self.pods[pod.id]
        self.ended[pod.id] = pod
        pod.become(Status.TERMINATED, now_s)
        pod.ended_at_s = self._last_change_s = now_s
        self.events.add(
            "pod.ended",
            at_s=now_s,
            pod_id=pod.id,
            name=pod.name,
            created_at=pod.created_at_s,
            ended_at=now_s,
            price_usd_per_hr=pod.price_usd_per_hr,
            usd=bill.usd(now_s),
            reason=reason,
        )
        pod_log = self.logs[pod.id]
        pod_log.add("system", "remove container")
        self._lives.end(pod, pod_log.close)

    def act(self, pod_id: str, action: str) -> Pod | None:
        """start, stop, restart, terminate; Problem 409 when the pod's state does not allow it. None = terminated."""
        pod = self.get(pod_id)
        if action not in pod.actions():
            locked = "locked and " if pod.locked else ""
            raise Problem(409, f"cannot {action} a pod that is {locked}{pod.status.value}")
        if action == "terminate":
            self.delete(pod_id, "terminate")
            return None
        {"stop": self._stop, "start": self._start, "restart": self._restart}[action](pod)
        return pod

    def _exited(self, pod: Pod, text: str) -> None:
        self.logs[pod.id].add("system", text)
        self._stop(pod)

    def _stop(self, pod: Pod) -> None:
        now_s = time.time()
        self.ledger.bills[pod.id].pause(now_s)
        self.stock.give_back(pod)
        pod.become(Status.EXITED, now_s)
        self.events.add("pod.stopped", at_s=now_s, pod_id=pod.id, name=pod.name)
        self._lives.stop(pod)

    def _start(self, pod: Pod) -> None:
        if pod.status is Status.EXITED and not self.stock.take_again(pod):
            raise Problem(400, self.facts.texts.no_gpu_to_resume)
        now_s = time.time()
        self.ledger.bills[pod.id].resume(now_s)
        pod.stuck = False
        pod.become(Status.PROVISIONING, now_s)
        self.events.add("pod.resumed", at_s=now_s, pod_id=pod.id, name=pod.name)
        self._lives.stop(pod)
        self._lives.begin(pod, self.logs[pod.id])

    def _restart(self, pod: Pod) -> None:
        never_ran, pod.stuck = pod.stuck, False
        pod.become(Status.STARTING, time.time())
        self._lives.stop(pod)
        self._lives.begin(pod, self.logs[pod.id], boot=never_ran)

    def _log_file(self, pod: Pod) -> Path:
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{pod.id}.log"

    # -- secrets --------------------------------------------------------------------------------------------------
    def create_secret(self, name: str, value: str, description: str) -> Secret:
        """Keep a secret; Problem 409 when the name is taken."""
        if any(secret.name == name for secret in self.secrets.values()):
            raise Problem(409, f"a secret named {name} exists already")
        now_s = time.time()
        secret = Secret(f"sec_{secrets.token_hex(8)}", name, value, description, now_s, now_s)
        self.secrets[secret.id] = secret
        self.events.add("secret.created", secret_id=secret.id, name=name)
        return secret

    def secret(self, secret_id: str) -> Secret:
        """One secret; Problem 404."""
        secret = self.secrets.get(secret_id)
        if secret is None:
            raise Problem(404, self.facts.texts.not_found)
        return secret

    def update_secret(self, secret_id: str, value: str | None, description: str | None) -> Secret:
        """Rotate the value, or describe it anew; containers that run keep what they have."""
        secret = self.secret(secret_id)
        if value is not None:
            secret.value, secret.updated_at_s = value, time.time()
        if description is not None:
            secret.description = description
        self.events.add("secret.updated", secret_id=secret.id, name=secret.name, rotated=value is not None)
        return secret

    def delete_secret(self, secret_id: str) -> None:
        """Forget it; a container that starts later and refers to it fails."""
        secret = self.secret(secret_id)
        del self.secrets[secret_id]
        self.events.add("secret.deleted", secret_id=secret.id, name=secret.name)

    # -- the whole ------------------------------------------------------------------------------------------------
    def patch(self, patch: SettingsPatch) -> None:
        """Change settings of the running cloud."""
        changes: dict[str, Any] = patch.changes()
        self.stock.change(changes.pop("stock", {}), patch.inventory or ())
        changes.pop("inventory", None)
        if "balance_usd" in changes:
            self.ledger.set_balance(changes["balance_usd"], time.time())
        self.facts = self.facts.model_copy(update=changes)
        self.patched |= changes

    async def close(self, reason: str) -> None:
        """Let go what faults hold, take no new pods, terminate all and wait until their processes are gone."""
        self._closed = True
        self.generation += 1  # requests that a fault held until now are not committed any more
        self.faults.clear()
        for pod_id in list(self.pods):
            self.end(pod_id, reason)
        await self._lives.wait()

    def take_back(self, pods: Sequence[Pod]) -> None:
        """What an earlier daemon had; nothing of it lives yet."""
        for pod in sorted(pods, key=lambda pod: pod.serial):
            (self.pods if pod.ended_at_s is None else self.ended)[pod.id] = pod
            if pod.ended_at_s is None and pod.status is not Status.EXITED:
                self.stock.occupy(pod)
        self._serials = itertools.count(1 + max((pod.serial for pod in pods), default=0))
        self._last_change_s = max((pod.ended_at_s or pod.created_at_s for pod in pods), default=0.0)

    def revive(self) -> None:
        """The hosts came up again: containers that ran start anew, boots begin anew, all the rest is as it was."""
        for pod in self.pods.values():
            self.logs[pod.id] = PodLog(self._log_file(pod))
            if pod.stuck or pod.status in (Status.EXITED, Status.ERROR):
                continue
            pod.release_ports()
            boot = pod.starts == 0 or pod.status is Status.PROVISIONING
            pod.become(Status.PROVISIONING if boot else Status.STARTING, time.time())
            self.logs[pod.id].add("system", "restart container")
            self.events.add("pod.restarted", pod_id=pod.id, name=pod.name, reason="daemon")
            self._lives.begin(pod, self.logs[pod.id], boot=boot)

    async def suspend(self) -> None:
        """End what runs in the pods, and nothing else: the account goes on without us."""
        self._closed = True
        self.generation += 1
        self.faults.let_go()
        for pod in self.pods.values():
            self._lives.stop(pod)
        await self._lives.wait()

    def on_reset(self, reset: Callable[[], None]) -> None:
        """What shall be reset with the cloud."""
        self._also_reset.append(reset)

    async def reset(self) -> None:
        """Back to the state at start: no pods, no secrets, no faults, first settings, no history."""
        self.facts = self.facts.model_copy(update={"grace_s": 0.0})
        await self.close("reset")
        self._fill(self._initial_facts)
        for reset in self._also_reset:
            reset()
        self.events.clear()
        self.events.add("cloud.reset")
        self._closed = False

    def keep(self) -> None:
        """Write down what changed, where state is kept: before an answer tells of it."""
        if self.keeper:
            self.keeper()

    async def watch(self) -> None:
        """Keep what changed by itself. At balance zero pods end; those with a network volume are stopped instead."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.pods and self.ledger.balance_usd(time.time()) <= 0:
                self._end_all_for_money()
            try:
                self.keep()
            except OSError:
                log.exception("the journal cannot be written")

    def _end_all_for_money(self) -> None:
        for pod in list(self.pods.values()):
            if volume_of(pod) is None:
                self.end(pod.id, "balance")
            elif pod.status is not Status.EXITED:
                self._exited(pod, self.facts.texts.exited_by_service)
