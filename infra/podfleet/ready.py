"""Is a pod ready, on its way, or failed, and why? Pure: what is known of it and for how long → a verdict.

Called by `podfleet up --wait`; `PodReachable` asks it about drivers. A running pod is no proof of a working node: ready
is a heartbeat at the queue server, or the node's ready line in the pod's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

BOOT_S = 60.0  # machine found, container started
PULL_S_PER_GB = 12.0
LEAST_DEADLINE_S = 300.0
DRIVER_LINE = re.compile(r"unsatisfied condition: cuda", re.I)  # what the container runtime says of an old driver
SHOWN_LINES = 3


class State(StrEnum):
    """Where a pod stands."""

    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"


class Cause(StrEnum):
    """Why a pod has failed."""

    DRIVER = "driver too old"
    ENDED = "not alive"
    GONE = "gone"
    NO_CONTAINER = "no container"
    UNREACHABLE = "no SSH"
    SILENT = "node never reported"
    LOST = "node silent"
    UNSEEN = "not to be seen"


ITS_NODE_MAY_WORK = frozenset({Cause.LOST, Cause.UNSEEN})  # such a pod is told of and left alone


class Word(StrEnum):
    """What has been heard of a pod's node."""

    HEARD = "heard"
    LOST = "lost"  # it has been heard, and is silent now
    NEVER = "never"  # queue or whole log were read, and it is not in them
    UNKNOWN = "unknown"  # neither could be read


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of one pod now. `status` is empty where no list shows it (any more)."""

    status: str
    live: bool = True
    has_container: bool = False
    cuda_version: str = ""
    word: Word = Word.UNKNOWN
    bare_s: float = 0.0  # for how long without a container; 0 with one
    quiet_s: float = 0.0  # since its first container, and no word yet
    absent_s: float = 0.0  # for how long in no list
    system_log: tuple[str, ...] = ()
    phase: str = ""  # the last one that the node has told in its log


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a pod may take, and what its host must have."""

    deadline_s: float
    min_cuda_version: str = ""
    absence_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state with its reason. `ends`: the pod is of no use and costs money, so it is ended and may be replaced."""

    state: State
    reason: str = ""
    cause: Cause | None = None

    @property
    def ends(self) -> bool:
        return self.state is State.FAILED and self.cause not in ITS_NODE_MAY_WORK


READY, WAITING = Verdict(State.READY), Verdict(State.WAITING)


class Times(NamedTuple):
    """How long a pod has been as it is; see `Sight`."""

    bare_s: float
    quiet_s: float
    absent_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """Since when a slot's pod has been as it is; moments are monotonic, None where it is not (or not yet) so."""

    pod_id: str = ""
    bare_since_s: float | None = None
    quiet_since_s: float | None = None
    absent_since_s: float | None = None

    def times(self, now_s: float) -> Times:
        def since(moment_s: float | None) -> float:
            return 0.0 if moment_s is None else now_s - moment_s

        return Times(since(self.bare_since_s), since(self.quiet_since_s), since(self.absent_since_s))


def seen(record: Record, pod_id: str, *, has_container: bool, age_s: float, now_s: float) -> Record:
    """The record after one more look; `pod_id` is empty where no list shows a pod. Another pod begins a new record.

    `age_s` is how old we know the pod to be: it has been without a container for so long when we first see it. A
    container that comes and goes does not begin anew: `quiet_since_s` is that of the first one.
    """
    if not pod_id:
        return replace(record, absent_since_s=now_s if record.absent_since_s is None else record.absent_since_s)
    if pod_id != record.pod_id:
        record = Record(pod_id, bare_since_s=None if has_container else now_s - age_s)
    if not has_container:
        return replace(
            record, absent_since_s=None, bare_since_s=now_s if record.bare_since_s is None else record.bare_since_s
        )
    quiet_since_s = now_s if record.quiet_since_s is None else record.quiet_since_s
    return replace(record, absent_since_s=None, bare_since_s=None, quiet_since_s=quiet_since_s)


def boot_deadline_s(image_gb: float, *, at_most_s: float) -> float:
    """How long a pod may take until its node works: by the size of its image, not under five minutes.

    `at_most_s` is what the stack gives a pod until SSH answers (`reachableDeadlineMinutes`): a stack that is quick
    everywhere else is quick here, too.
    """
    return min(max(LEAST_DEADLINE_S, BOOT_S + PULL_S_PER_GB * image_gb), at_most_s)


def judge(sight: Sight, rules: Rules) -> Verdict:
    """One pod's verdict. A word from its node counts more than any clock; that it has ended counts more than a word."""
    if not sight.status:
        return _failed(Cause.GONE, "somebody ended it, or it ended itself") if _gone(sight, rules) else WAITING
    if not sight.live:
        return _failed(Cause.ENDED, f"it is {sight.status}{last_words(sight.system_log)}")
    if sight.has_container and sight.word is Word.HEARD:
        return READY
    if driver := driver_problem(sight.cuda_version, sight.system_log, rules.min_cuda_version):
        return _failed(Cause.DRIVER, driver)
    if sight.bare_s >= rules.deadline_s:
        late = f"{sight.status} without a container for {sight.bare_s:.0f} s"
        return _failed(Cause.NO_CONTAINER, f"{late}{last_words(sight.system_log)}")
    return _silent(sight) if sight.quiet_s >= rules.deadline_s else WAITING


def driver_problem(cuda_version: str, system_log: Iterable[str], min_cuda_version: str) -> str:
    """Why this host will never run the image; empty where nothing says so. The log of a pod without a container."""
    for line in system_log:
        if DRIVER_LINE.search(line):
            return f"driver too old: {line.strip()}"
    floor, found = version_of(min_cuda_version), version_of(cuda_version)
    if floor and found and found < floor:
        return f"driver too old: the host has CUDA {cuda_version}, wanted is {min_cuda_version}"
    return ""


def version_of(text: str) -> tuple[int, ...]:
    """`12.8` → (12, 8); empty for what is no version."""
    parts = text.split(".")
    return tuple(map(int, parts)) if text and all(part.isdecimal() for part in parts) else ()


def last_words(lines: Iterable[str]) -> str:
    """The end of a pod's system log, on one line; it says why a container does not come up."""
    told = " | ".join(line.strip() for line in list(lines)[-SHOWN_LINES:] if line.strip())
    return f"; its system log ends: {told}" if told else ""


def _gone(sight: Sight, rules: Rules) -> bool:
    return sight.absent_s > 0 and sight.absent_s >= rules.absence_s


def _silent(sight: Sight) -> Verdict:
    late = f"for {sight.quiet_s:.0f} s"
    if sight.word is Word.NEVER:
        phase = f" (last phase: {sight.phase})" if sight.phase else ""
        return _failed(Cause.SILENT, f"its node has not reported {late}{phase}{last_words(sight.system_log)}")
    if sight.word is Word.LOST:
        return _failed(Cause.LOST, "the queue has heard its node and does not hear it now; it runs, and is left alone")
    return _failed(Cause.UNSEEN, f"neither queue nor log could be read {late}; it runs, and is left alone")


def _failed(cause: Cause, reason: str) -> Verdict:
    return Verdict(State.FAILED, reason, cause)
