"""What a killed engine leaves behind, put right before the next one starts: lock, processes, state, pending operations.

Called by `podfleet up`, `destroy`, `scale`, `reconcile` and `unlock`. Only what is proven is done: a lock goes when its
holder is dead, a process ends when its engine is. Pods are adopted by their names in the `up` that follows; what a
request that was on its way has still rented, `last_look` ends afterwards (docs/decisions/0012-sweep-and-healing.md).
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

from podfleet import processes
from podfleet.config import STACK_VARIABLE, PodfleetConfig
from podfleet.errors import EngineError, ProviderError, StackLocked, StateUnreadable
from podfleet.processes import Holder
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.clock import Clock, RealClock
from podfleet.providers.runpod.fleet import unknown_pods
from podfleet.stackcloud import stack_cloud
from podfleet.state import Lock, StateFolder, is_locked, load, read_state, refresh_root, state_folder
from podfleet.workspace import Workspace, run_engine

if TYPE_CHECKING:
    from podfleet.providers.runpod.wire import PodView

MARKS = (STACK_VARIABLE, "PULUMI_BACKEND_URL", "PULUMI_HOME")  # a stack's processes have them as we have them
HOLDER = re.compile(r"created by \S*?@?([^@\s]+) \(pid (\d+)\)(?: at (\S+))?")
SHOWN = 4
LOOKS = 4  # of the last ones, evenly over the wait


@dataclass(frozen=True, slots=True)
class Healed:
    """What was put right, in words.

    `interrupted_s` (monotonic): an engine was killed, and its last process is gone. `put_back`: the state is an older
    one, which may know pods that have ended since: it needs a refresh.
    """

    notes: tuple[str, ...] = ()
    interrupted_s: float | None = None
    put_back: bool = False

    def __str__(self) -> str:
        return "; ".join(self.notes)


@dataclass(frozen=True, slots=True)
class Healing:
    """One stack's healing. `by_hand`: also a lock that lies in a bucket, for other machines to see, may be removed."""

    workspace: Workspace
    env: Mapping[str, str]
    by_hand: bool = False
    host: str = field(default_factory=processes.this_host)
    clock: Clock = field(default_factory=RealClock)

    def heal(self) -> Healed:
        """Everything but the last look. Raises StackLocked, with who holds it, where that may be alive."""
        folder = state_folder(self.workspace, self.env)
        dead = self._dead(folder.locks()) if folder else []
        notes = [self._ended()]
        for lock in dead:
            lock.file.unlink(missing_ok=True)
        notes += [_removed(lock.holder) for lock in dead if lock.holder]
        interrupted_s = self.clock.monotonic_s() if any(notes) else None
        put_back = mend(folder) if folder else ""
        settled = self._settled(shared=folder is None)
        if any(settled):
            interrupted_s = self.clock.monotonic_s()
        notes += [put_back, *settled]
        return Healed(tuple(filter(None, notes)), interrupted_s, put_back=bool(put_back))

    def _dead(self, locks: Sequence[Lock]) -> list[Lock]:
        for lock in locks:
            if lock.holder is None:
                raise StackLocked(f"the lock at {lock.file} cannot be read: remove it, once no update is running")
            self._must_be_dead(lock.holder)
        return list(locks)

    def _must_be_dead(self, holder: Holder) -> None:
        seen = processes.look(holder.pid) if holder.host == self.host else None
        if why := processes.why_not_dead(holder, host=self.host, seen=seen):
            raise StackLocked(locked_line(holder, why, self.workspace.stack))

    def _ended(self) -> str:
        marks = {name: self.env.get(name) for name in MARKS}
        found = processes.leftovers(marks, folder=self.workspace.project_dir)
        if not found:
            return ""
        left = processes.end(found, sleep=self.clock.sleep)
        pids = ", ".join(str(process.pid) for process in found)
        if left:
            raise EngineError(f"processes {pids} of a killed update do not end: end them by hand")
        return f"{len(found)} processes that it had left running were ended ({pids})"

    def _settled(self, *, shared: bool) -> list[str]:
        """Pending operations are cleared under the engine's own lock, which also tells whether there is another."""
        try:
            view = read_state(self.workspace, self.env)
        except StateUnreadable:
            return []  # a new stack, or the engine will say what is wrong
        if not view.pending and not (shared and self.by_hand):
            return []
        done = self._refresh(view.root)
        removed = []
        if is_locked(done):
            removed = self._unlocked(done.stdout + done.stderr)
            done = self._refresh(view.root)
        if is_locked(done):
            raise StackLocked("another update of this stack has begun in this moment: wait for it")
        if not view.pending:
            return removed
        named = ", ".join(view.pending[:SHOWN]) + (", …" if len(view.pending) > SHOWN else "")
        cleared = "cleared" if done.returncode == 0 else "not cleared, the engine will warn of them"
        return [*removed, f"{len(view.pending)} operations were pending ({named}): {cleared}, pods are adopted by name"]

    def _unlocked(self, text: str) -> list[str]:
        """The lock of a state that is not on this machine's disk: removed by hand only."""
        holders = holders_in(text)
        for holder in holders:
            self._must_be_dead(holder)
        if not holders or not self.by_hand:
            raise StackLocked(_shared_line(holders, self.workspace.stack))
        run_engine(self.workspace, self.env, "cancel", "--yes")
        return [_removed(holder) for holder in holders]

    def _refresh(self, root: str) -> CompletedProcess[str]:
        return refresh_root(self.workspace, self.env, root, "--clear-pending-creates")


def last_look(workspace: Workspace, config: PodfleetConfig, env: Mapping[str, str], healed: Healed) -> str:
    """Some time after the killed update's last process was gone: end what its last requests have still rented.

    Nothing to do where no update was killed. The state's own wishes count: a pod that an `up` without success is to
    adopt is left alone. Never raises for what the cloud or the state would not say: that is the answer, then.
    """
    if healed.interrupted_s is None:
        return ""
    clock = RealClock()
    late: list[PodView] = []
    trouble = ""
    for due_s in look_times(healed.interrupted_s, config.reconcile_seconds, now_s=clock.monotonic_s()):
        clock.sleep(due_s - clock.monotonic_s())
        try:
            with stack_cloud(workspace, config, env, clock=clock) as cloud:
                found, _ = unknown_now(workspace, config, env, cloud.census.now().pods)
                cloud.ending.end(found, why="rented by a killed update, in no state")
        except (ProviderError, EngineError) as error:
            trouble = str(error)
            continue
        trouble = ""
        late += found
    return _said(late, trouble, workspace.stack)


def _said(late: Sequence[PodView], trouble: str, stack: str) -> str:
    if trouble:
        return f"the last look after the killed update failed: {trouble}; look with `podfleet sweep {stack}`"
    if not late:
        return ""
    return f"the killed update had still rented {', '.join(f'{pod.name} ({pod.id})' for pod in late)}: ended"


def look_times(interrupted_s: float, reconcile_s: float, *, now_s: float) -> list[float]:
    """Several, until the wait is over, so that a pod that comes late is not paid for until its end; those to come."""
    times = [interrupted_s + reconcile_s * look / LOOKS for look in range(1, LOOKS + 1)]
    return [at_s for at_s in times[:-1] if at_s > now_s] + times[-1:]


def unknown_now(
    workspace: Workspace, config: PodfleetConfig, env: Mapping[str, str], pods: Sequence[PodView]
) -> tuple[list[PodView], list[PodView]]:
    """Those of `pods` (listed just before) that are ours and not in the state: nobody's, and those that `up` adopts.

    Raises StackLocked where an update runs by now: whose pods these are, only it knows.
    """
    folder = state_folder(workspace, env)
    if folder and folder.locks():
        raise StackLocked("another update of this stack has begun")
    view = read_state(workspace, env)
    ours = [pod for pod in pods if is_ours(pod, uid=config.uid, prefix=workspace.prefix)]
    nobodys = unknown_pods(ours, wanted=list(view.wanted), known=view.ids)
    return nobodys, [pod for pod in ours if pod.id not in view.ids and pod not in nobodys]


def mend(folder: StateFolder) -> str:
    """An empty or broken state is put back from the newest copy that can be read; says what it did.

    Raises StateUnreadable where there is no copy. What the copy does not know is adopted by name.
    """
    for sidecar in folder.checkpoint.parent.glob(f"{folder.stack}.json*.attrs"):
        if sidecar.stat().st_size == 0:  # the engine takes an empty one for a broken state
            sidecar.unlink()
    try:
        load(folder.checkpoint)
    except StateUnreadable as error:
        if not folder.checkpoint.exists():
            return ""  # there has never been one
        return _put_back(folder, str(error))
    return ""


def locked_line(holder: Holder, why: str, stack: str) -> str:
    """Who holds the lock, and what to do, in one line."""
    at = datetime.fromtimestamp(holder.since_s).astimezone()
    who = f"pid {holder.pid} on {holder.host}, since {at:%H:%M:%S}"
    advice = (
        "wait for it"
        if why == "it is running"
        else f"when you know that it is dead, `pulumi cancel --yes -s {stack}` removes its lock"
    )
    return f"another update of this stack is running ({who}): {why}; {advice}"


def holders_in(text: str) -> list[Holder]:
    """The holders of locks in the engine's words; those that it does not name in full are not among them."""
    found = []
    for host, pid, at in HOLDER.findall(text):
        try:
            found.append(Holder(int(pid), host, datetime.fromisoformat(at).timestamp()))
        except ValueError:
            continue
    return found


def _shared_line(holders: Sequence[Holder], stack: str) -> str:
    if not holders:
        return "another update of this stack is running: the place where its state is does not say whose; wait for it"
    pids = ", ".join(str(holder.pid) for holder in holders)
    return (
        f"this stack is locked by process {pids} of this host, which is dead: `podfleet unlock {stack}` takes it away"
    )


def _removed(holder: Holder) -> str:
    at = datetime.fromtimestamp(holder.since_s).astimezone()
    return f"the update of {at:%H:%M:%S} (pid {holder.pid}) is dead: its lock is removed"


def _put_back(folder: StateFolder, reason: str) -> str:
    for copy in folder.older:
        try:
            load(copy)
        except StateUnreadable:
            continue
        broken = folder.checkpoint.with_name(f"{folder.checkpoint.name}.broken-{time.time():.0f}")
        shutil.copy2(folder.checkpoint, broken)
        _replace(folder.checkpoint, copy)
        at = datetime.fromtimestamp(copy.stat().st_mtime).astimezone()
        return f"{reason}: put back the copy of {at:%Y-%m-%d %H:%M:%S} ({copy.name}); what was there is {broken.name}"
    advice = "remove the file, then `podfleet env` and `podfleet:adopt: true` take the pods over (docs/operating.md)"
    raise StateUnreadable(f"{reason}, and no copy of it can be: {advice}")


def _replace(target: Path, source: Path) -> None:
    """By a rename, so that nobody reads half a state."""
    made = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, made)
    made.replace(target)
