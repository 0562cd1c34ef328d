"""Looks at the pods of a stack while somebody waits for them: the cloud's list, the queue's nodes, and a few logs.

Used by `awaiting`. What a look means is `ready.judge`; here is what it costs: one list per poll interval, one request
to the queue, and at most `READS` logs. Read are the system log of a pod without a container, now and then, and the
node's log where the queue cannot tell: now and then; where it does not know the node: once, when the pod is late.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from podfleet.errors import ProviderError, SignalError
from podfleet.providers.runpod.census import Census, Snapshot, is_ours
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.wire import LogLine, PodView
from podfleet.ready import WAITING, Cause, Record, Rules, Sight, Verdict, Word, judge, seen
from podfleet.signals.queue import Node
from podfleet_node.schemas import PHASE_LINE, READY_LINE

READS = 6  # logs per look: with a list every ten seconds that is well under the API's 60 requests a minute
READERS = 3
NODE_TAIL, SYSTEM_TAIL = 5000, 20
OFFLINE_AFTER_S = 120.0  # a silent node's row says so by then
LOOKS_INTO_A_LOG = 20  # while a pod may take its time: every 15 s of five minutes


class ReadsLogs(Protocol):
    """The part of the client that is needed here."""

    def pod_logs(self, pod_id: str, *, source: str, tail: int, wait_s: float) -> list[LogLine]: ...


class KnowsNodes(Protocol):
    """`signals.queue.QueueSignal`."""

    def nodes(self) -> dict[str, Node]: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A wanted slot, the pod in it (None where no list shows one), and what is to be thought of it."""

    slot: str
    pod: PodView | None
    verdict: Verdict
    age_s: float = 0.0


@dataclass(slots=True)
class _Log:
    """What one log of one pod said when it was last read."""

    read_s: float = float("-inf")
    word: Word = Word.UNKNOWN
    phase: str = ""
    lines: tuple[str, ...] = ()


@dataclass(slots=True)
class _Look:
    """One look, on its way from pods to verdicts."""

    now_s: float
    pods: dict[str, PodView | None]
    nodes: Mapping[str, Node] | None
    sights: dict[str, Sight] = field(default_factory=dict)


class Lookout:
    """Keeps what earlier looks have shown. `queue_trouble` says why the queue could not be asked, if it could not."""

    def __init__(self, census: Census, logs: ReadsLogs, queue: KnowsNodes, clock: Clock, rules: Rules) -> None:
        self._census = census
        self._logs = logs
        self._queue = queue
        self._clock = clock
        self._rules = rules
        self._last: Snapshot | None = None
        self._began_s = clock.monotonic_s()
        self._before: frozenset[str] = frozenset()
        self._records: dict[str, Record] = {}
        self._known: dict[tuple[str, str], _Log] = {}
        self._watching = False
        self.queue_trouble = ""

    def begin(self) -> None:
        """Before the first `up`: the pods that are there now have had their time to boot."""
        self._last = self._census.now()
        self._began_s = self._clock.monotonic_s()
        self._before = frozenset(pod.id for pod in self._last.pods)

    def begin_watch(self) -> None:
        """After an `up`: what was listed before it is of no use."""
        self._watching = False

    def look(self, names: Mapping[str, str], *, uid: str, prefix: str) -> list[Seen]:
        """Slot → remote name: the pods of these names now, one poll interval after the last look of this watch.

        Raises what the list raises; logs and queue may fail.
        """
        self._last = self._census.next_poll(self._last) if self._watching and self._last else self._census.now()
        self._watching = True
        ours = [pod for pod in self._last.pods if is_ours(pod, uid=uid, prefix=prefix)]
        pods = {slot: _kept([pod for pod in ours if pod.name == name]) for slot, name in names.items()}
        look = _Look(self._last.asked_s, pods, self._nodes())
        for slot, pod in pods.items():
            self._records[slot] = self._remember(slot, pod, look.now_s)
            look.sights[slot] = self._sight(slot, look)
        self._read(sorted(self._due(look), key=self._read_s)[:READS], look)
        found = [Seen(slot, pod, self._judge(slot, look), self._age_s(pod)) for slot, pod in pods.items()]
        return self._explained(found, look)

    def refresh(self) -> None:
        """A list of this moment, for `fleet`."""
        self._last = self._census.now()

    def fleet(self, *, uid: str, prefix: str) -> list[PodView]:
        """All pods of ours in the last list."""
        pods = self._last.pods if self._last else ()
        return [pod for pod in pods if is_ours(pod, uid=uid, prefix=prefix)]

    def _nodes(self) -> Mapping[str, Node] | None:
        try:
            nodes = self._queue.nodes()
        except SignalError as error:
            self.queue_trouble = str(error)
            return None
        self.queue_trouble = ""
        return nodes

    def _remember(self, slot: str, pod: PodView | None, now_s: float) -> Record:
        record = self._records.get(slot, Record())
        if pod is None:
            return seen(record, "", has_container=False, age_s=0.0, now_s=now_s)
        age_s = 0.0 if pod.id in self._before else min(self._age_s(pod), now_s - self._began_s)
        return seen(record, pod.id, has_container=_has_container(pod), age_s=max(0.0, age_s), now_s=now_s)

    def _age_s(self, pod: PodView | None) -> float:
        """By two clocks, RunPod's and ours: for show, and never longer than we have been at it."""
        return max(0.0, self._clock.now_s() - pod.created_at_s) if pod and pod.created_at_s else 0.0

    def _sight(self, slot: str, look: _Look) -> Sight:
        pod, times = look.pods[slot], self._records[slot].times(look.now_s)
        if pod is None:
            return Sight("", absent_s=times.absent_s)
        node_log, system_log = self._log(pod.id, "container"), self._log(pod.id, "system")
        return Sight(
            pod.status,
            live=pod.live,
            has_container=_has_container(pod),
            cuda_version=pod.cuda_version,
            word=_word_of(pod, look.nodes, self._age_s(pod)) or node_log.word,
            bare_s=times.bare_s,
            quiet_s=times.quiet_s,
            system_log=system_log.lines,
            phase=node_log.phase,
        )

    def _judge(self, slot: str, look: _Look) -> Verdict:
        """Nobody is called unseen whose log was not tried in this very look."""
        pod = look.pods[slot]
        look.sights[slot] = self._sight(slot, look)
        verdict = judge(look.sights[slot], self._rules)
        unread = pod is not None and self._log(pod.id, "container").read_s < look.now_s
        return WAITING if verdict.cause is Cause.UNSEEN and unread else verdict

    def _due(self, look: _Look) -> list[tuple[str, str]]:
        """Logs that are worth a request now."""
        every_s = self._rules.deadline_s / LOOKS_INTO_A_LOG
        found = []
        for slot, pod in look.pods.items():
            if pod is None:
                continue
            sight, late = look.sights[slot], look.sights[slot].quiet_s >= self._rules.deadline_s
            if sight.live and sight.has_container and sight.word in (Word.NEVER, Word.UNKNOWN):
                if late or look.nodes is None or pod.name in look.nodes:
                    found.append((pod.id, "container", 0.0 if late else every_s))
            elif sight.live and pod.status == "RUNNING" and not sight.has_container:
                found.append((pod.id, "system", 2 * every_s))
        return [(pod, source) for pod, source, gap_s in found if look.now_s - self._log(pod, source).read_s >= gap_s]

    def _explained(self, found: list[Seen], look: _Look) -> list[Seen]:
        """The system log belongs into the reason of every pod that is ended."""
        failed = [each for each in found if each.pod and each.verdict.ends]
        unread = [each.pod.id for each in failed if each.pod and self._read_s((each.pod.id, "system")) < look.now_s]
        self._read([(pod_id, "system") for pod_id in unread], look)
        return [replace(each, verdict=self._judge(each.slot, look)) if each in failed else each for each in found]

    def _log(self, pod_id: str, source: str) -> _Log:
        return self._known.setdefault((pod_id, source), _Log())

    def _read_s(self, which: tuple[str, str]) -> float:
        return self._log(*which).read_s

    def _read(self, which: Collection[tuple[str, str]], look: _Look) -> None:
        if not which:
            return
        with ThreadPoolExecutor(READERS) as readers:
            for key, log in zip(which, readers.map(lambda key: self._read_one(*key), which), strict=True):
                self._known[key] = replace(log, read_s=look.now_s)

    def _read_one(self, pod_id: str, source: str) -> _Log:
        tail = NODE_TAIL if source == "container" else SYSTEM_TAIL
        try:
            lines = [line.text for line in self._logs.pod_logs(pod_id, source=source, tail=tail, wait_s=5.0)]
        except ProviderError:
            return _Log(lines=self._log(pod_id, source).lines)
        if source == "system":
            return _Log(lines=tuple(lines))
        return _Log(word=_word_in(lines), phase=_phase_in(lines))


def _has_container(pod: PodView) -> bool:
    return pod.status == "RUNNING" and pod.has_runtime


def _kept(same: list[PodView]) -> PodView | None:
    """Of several pods of one name, the one that the provider keeps: the oldest live one."""
    return min(same, key=lambda pod: (not pod.live, pod.created_at_s, pod.id), default=None)


def _word_of(pod: PodView, nodes: Mapping[str, Node] | None, age_s: float) -> Word | None:
    """What the queue says. The pod that was in this slot before had the same name: its heartbeats do not count, and
    where the queue does not say when the last one was (cast2md), nothing is said until that pod's row is offline."""
    node = nodes.get(pod.name) if nodes is not None else None
    if node is None or (node.beat_s is not None and node.beat_s < pod.created_at_s):
        return None
    if node.online:
        return Word.HEARD if node.beat_s is not None or age_s > OFFLINE_AFTER_S else None
    return Word.LOST if node.beat_s is not None else None


def _word_in(lines: list[str]) -> Word:
    """What the log says; a log that is longer than its tail may have had the line before it."""
    if any(line.startswith(READY_LINE) for line in lines):
        return Word.HEARD
    return Word.NEVER if len(lines) < NODE_TAIL else Word.UNKNOWN


def _phase_in(lines: list[str]) -> str:
    phases = [line.removeprefix(PHASE_LINE) for line in lines if line.startswith(PHASE_LINE)]
    return phases[-1] if phases else ""
