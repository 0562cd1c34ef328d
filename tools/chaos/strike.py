"""One point: bring the fleet there, strike, run the one command that follows, judge; and judge again after the rest.

Called by the runner's workers. Everything that is started here has ended when `Trial.judge_late` returns.
"""

from __future__ import annotations

import shutil
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tools.chaos import driver
from tools.chaos.account import FOREIGN_UID, Account, answers, wait_for
from tools.chaos.point import Point, Victim
from tools.chaos.program import Declared, Fleet, Size
from tools.chaos.verdict import (
    Books,
    Canaries,
    foreign_problems,
    leak_problems,
    orphans,
    ours,
    pod_problems,
    unowned_problems,
)

from podfleet.providers.runpod.client import Patience
from podfleet.providers.runpod.settings import ProviderSettings

LIMIT_S = 240.0
HIT_S = 60.0
SETTLE_S = 10.0
PACE = 5.0
LATER = "later: "
QUICK: dict[str, Any] = {  # in seconds of the provider's clock, of which PACE pass in one
    "absence_interval_s": 1.0,
    "poll_interval_s": 1.0,
    "reconcile_s": 5.0,
    "drain_deadline_s": 10.0,
    "create_round_wait_s": 1.0,
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets of this run of the chaos: what must be seen nowhere."""

    ssh_private: str = field(repr=False)
    ssh_public: str = ""

    @classmethod
    def made(cls) -> Keys:
        """A fresh pair."""
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        return cls(private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())

    @property
    def canary(self) -> str:
        """A line of the private key."""
        return max(self.ssh_private.splitlines(), key=len)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problems` empty and `fired`: the point counts."""

    point: str
    fired: bool
    problems: tuple[str, ...]
    orphans: int = 0
    worst_unowned_s: float = 0.0
    took_s: float = 0.0


class TrialFailed(Exception):
    """The point could not be carried out; the text says where it stopped."""


@dataclass
class Trial:
    """A point on an account."""

    point: Point
    account: Account
    folder: Path
    number: int
    keys: Keys
    problems: list[str] = field(default_factory=list)
    fired: bool = False
    ended_s: float = 0.0
    took_s: float = 0.0
    _books: Books = field(default_factory=lambda: Books({}))
    _providers: set[int] = field(default_factory=set)
    _interrupted_at_s: float = 0.0
    _pods_before: set[str] = field(default_factory=set)
    _seal: bytes = field(default_factory=Fernet.generate_key, repr=False)

    @property
    def fleet(self) -> Fleet:
        name = f"c{self.number}"
        secret = f"tskey-auth-CHAOS{self.number:06d}x{self._seal[:8].hex()}"
        key = {"PUBLIC_KEY": self.keys.ssh_public} if self.point.ssh else {}
        return Fleet(
            f"{name}-0badcafe", f"podfleet-{name}-", secret, True, ("22/tcp",) if self.point.ssh else (), env=key
        )

    @property
    def canaries(self) -> Canaries:
        return Canaries((self.fleet.secret_value, self.account.cloud.api_key, self.keys.canary))

    def run(self) -> None:
        """All but the late look."""
        started_s = time.monotonic()
        try:
            self.prepare()
            self._strike()
            self._follow_up()
        except (TrialFailed, TimeoutError) as error:
            self.problems.append(str(error))
        self.ended_s = time.monotonic()
        self.took_s = self.ended_s - started_s

    def judge_late(self) -> Outcome:
        """After the rest: still so, and nobody was charged for long. Ends what is left, keeps logs of a failure."""
        pods = self.account.cloud.pods()
        worst_s = self._open_books().since(self._books)
        late = [*self._judged(pods), *foreign_problems(pods, self.account.foreign), *unowned_problems(worst_s)]
        self.problems += [f"{LATER}{problem}" for problem in late if problem not in self.problems]
        left = orphans(pods, self.fleet, self._names(), self._known())
        for pid in self._providers:
            driver.kill_pid(pid)
        if not self.problems:
            shutil.rmtree(self.folder, ignore_errors=True)
        return replace(self.outcome(), orphans=left, worst_unowned_s=worst_s)

    def outcome(self) -> Outcome:
        """What is known now."""
        problems = tuple(self.problems)
        return Outcome(self.point.name, self.fired, problems, took_s=self.took_s)

    # The steps

    def prepare(self) -> None:
        self.folder.mkdir(parents=True)
        self.account.plant(f"{self.fleet.prefix}theirs-01-{'0' * 8}", FOREIGN_UID)
        self.account.plant(f"theirs-{self.number}-slot-01-{'0' * 8}", self.fleet.uid)
        for size in self.point.update.before:
            rc = self._engine(size)
            _require(rc == 0, f"up to {size} failed before any fault: {rc}")
            if self.point.ssh:
                _require(wait_for(self._drainable, SETTLE_S), "the pods' sshd does not answer")
        self._pods_before = self._known()

    def _strike(self) -> None:
        if self.point.later:
            self._engine(self.point.update.to)
        fault_id = self._arm()
        if not self.point.later:
            running = driver.start(replace(self.order(self.point.update.to), refresh=self.point.update.looks))
            self._kill(running, fault_id)
            running.wait(LIMIT_S)
        self._settle(fault_id)
        self.fired = self.fired or self._hits(fault_id) > 0
        self.account.cloud.release()

    def _kill(self, running: driver.Running, fault_id: str) -> None:
        victim, account = self.point.victim, self.account
        if victim is Victim.NOBODY:
            return
        if victim is Victim.CLOUD:
            if wait_for(lambda: account.died() or running.poll() is not None, HIT_S) and account.died():
                account.restart()
            return
        reached = wait_for(lambda: self._hits(fault_id) > 0 or running.poll() is not None, HIT_S)
        _require(reached, "neither was the fault hit nor did the engine end")
        self.fired = self._hits(fault_id) > 0
        self.problems += leak_problems(self.canaries, self.folder)
        self._providers.add(running.provider_pid)
        if victim in (Victim.ENGINE, Victim.BOTH):
            running.kill_engine()
        if victim in (Victim.PROVIDER, Victim.BOTH):
            running.kill_provider()
        account.cloud.release(fault_id)

    def _settle(self, fault_id: str) -> None:
        """A pod's trouble comes when it boots or later: until it has come."""
        if not self.point.ends_in:
            return
        wait_for(lambda: self._hits(fault_id) > 0, SETTLE_S)

        def struck() -> bool:
            pods = (pod for pod in self.account.cloud.pods() if pod["name"].startswith(self._slots))
            return any(pod["status"] == self.point.ends_in for pod in pods)

        wait_for(struck, SETTLE_S)

    def _follow_up(self) -> None:
        """One command, which must succeed; a second `up` then finds nothing to do."""
        cloud, wanted = self.account.cloud, self.point.wanted
        _require(answers(cloud), "the emulator does not answer")
        self._books = self._open_books()
        interrupted_s = time.monotonic()
        if self.point.looks:
            self._interrupted_at_s = time.time()
        rc = self._engine(wanted, refresh=self.point.refresh)
        if rc:
            self.problems.append(f"the follow-up failed ({rc})")
        if self.point.looks and driver.look_again(self.order(wanted), self._names(), interrupted_s):
            self.problems.append("the last looks failed")
        pods = cloud.pods()
        self.problems += [*self._judged(pods), *foreign_problems(pods, self.account.foreign)]
        self.problems += leak_problems(self.canaries, self.folder)
        if self.point.update.spares_pods and wanted is not None and self._known() != self._pods_before:
            self.problems.append(f"pods were {sorted(self._pods_before)} and are {sorted(self._known())}")
        if wanted is not None and not self.problems:
            rc = self._engine(wanted)
            changed = (self.folder / "changed").read_text()
            if rc or changed != "0":
                self.problems.append(f"a second up was not without a change: status {rc}, {changed} changes")
        self._count_holdings()

    def _count_holdings(self) -> None:
        """One of each after an `up`, none after a `destroy`."""
        names = set(self.fleet.holds().values())
        mine = sorted(name for name in self.account.held() if name in names)
        if mine != (sorted(names) if self.point.wanted is not None else []):
            self.problems.append(f"the account holds {mine} of ours")

    def _judged(self, pods: list[dict[str, Any]]) -> list[str]:
        return pod_problems(pods, self.fleet, self._names(), self._known())

    def _drainable(self) -> bool:
        """Whether each pod's sshd can be connected to."""
        ways = [pod["ssh"]["direct"] for pod in ours(self.account.cloud.pods(), self.fleet)]
        return all(way and _listens(way["port"]) for way in ways)

    def _names(self) -> list[str]:
        return self.fleet.names(self.point.wanted) if self.point.wanted else []

    def _known(self) -> set[str]:
        return self.order(None).state.pod_ids()

    def _open_books(self) -> Books:
        return Books.of(self.account.cloud.ledger(), self.fleet.prefix, self.account.foreign)

    @property
    def _slots(self) -> str:
        return f"{self.fleet.prefix}slot-"

    # What they need

    def _arm(self) -> str:
        order = dict(self.point.fault.order)
        if self.point.fault.strikes_pods:
            order["name_contains"] = self._slots
        answer = self.account.cloud.control.post("/_emu/faults", json=order)
        _require(answer.is_success, f"the emulator does not know this fault: {answer.text}")
        return str(answer.json()["id"])

    def _hits(self, fault_id: str) -> int:
        return sum(fault["hits"] for fault in self.account.cloud.faults() if fault["id"] == fault_id)

    def _engine(self, size: Size | None, *, refresh: bool = False) -> int:
        return driver.run(replace(self.order(size), refresh=refresh), LIMIT_S)

    def order(self, size: Size | None) -> driver.Order:
        quick = not self.point.defaults
        program: list[Declared] | None = None if size is None else self.fleet.program(size)
        return driver.Order(
            self.folder,
            self._seal,
            self._settings(),
            program,
            patience=driver.QUICK_PATIENCE if quick else Patience(),
            pace=PACE if quick else 1.0,
            prefix=self.fleet.prefix,
            uid=self.fleet.uid,
        )

    def _settings(self) -> ProviderSettings:
        cloud = self.account.cloud
        return ProviderSettings(
            api_key=cloud.api_key,
            base_url=cloud.runpod_url,
            ssh_private_key=self.keys.ssh_private,
            interrupted_at_s=self._interrupted_at_s,
            **({} if self.point.defaults else QUICK),
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise TrialFailed(text)
