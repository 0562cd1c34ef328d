"""`podfleet up --wait`: bring the fleet up, watch its pods until their nodes work, replace those that never will.

Called by the command line. What a pod's state means is `ready.judge`, how it is looked at is `lookout`; here are the
acts: `up`, the end of a failed pod, the note about its host, and `up` again, within the stack's budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from podfleet.avoid import AvoidList, BadHost
from podfleet.config import PodfleetConfig
from podfleet.errors import (
    ApiUnavailable,
    EngineError,
    NotReady,
    ProviderError,
    RateLimited,
    StackLocked,
)
from podfleet.lookout import KnowsNodes, Lookout, ReadsLogs, Seen
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.census import Census, Looks
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.drain import DrainOutcome
from podfleet.providers.runpod.ending import DeletesPods, Ending
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.settings import BOOT_DEADLINE_VARIABLE
from podfleet.providers.runpod.wire import PodView
from podfleet.ready import Cause, Rules, State, Verdict, boot_deadline_s
from podfleet.spans import span

SECONDS_PER_MINUTE = 60.0
TELL_EVERY_S = 30.0
TELL_AT_MOST = 3
BLIND_FOR_S = 120.0  # so long the cloud's list may fail before we give up
THE_HOST_IS_TO_BLAME = frozenset({Cause.DRIVER, Cause.ENDED, Cause.NO_CONTAINER, Cause.UNREACHABLE})


class Ups(Protocol):
    """The part of `deploy.Deployment` that is needed here."""

    def tell(self, variables: Mapping[str, str]) -> None: ...
    def up(self, *, refresh: bool) -> None: ...
    def pod_ids(self) -> dict[str, str]: ...


class Cloud(ReadsLogs, DeletesPods, Protocol):
    """The part of the client that is needed here."""

    def list_pods(self) -> tuple[PodView, ...]: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What a waiting `up` works with. `show` takes its short lines of progress."""

    deployment: Ups
    cloud: Cloud
    queue: KnowsNodes
    avoid: AvoidList
    clock: Clock
    show: Callable[[str], None]


class UpAndWait:
    """One `podfleet up --wait`. The config is read anew before each `up`: a reconciler may have changed it."""

    def __init__(self, read_config: Callable[[], PodfleetConfig], *, stack: str, prefix: str, outside: Outside) -> None:
        self._read_config = read_config
        self._config = config = read_config()
        self._stack = stack
        self._prefix = prefix
        self._out = outside
        self._clock = outside.clock
        at_most_s = config.reachable_deadline_minutes * SECONDS_PER_MINUTE
        self._deadline_s = boot_deadline_s(config.image_gb, at_most_s=at_most_s)
        rules = Rules(self._deadline_s, config.min_cuda_version, config.absence_interval_seconds)
        poll_s = config.poll_interval_seconds
        looks = Looks(config.absence_interval_seconds, poll_s, min(1.0, poll_s / 10))
        census = Census(outside.cloud.list_pods, looks=looks, clock=self._clock)
        self._lookout = Lookout(census, outside.cloud, outside.queue, self._clock, rules)
        self._ending = Ending(outside.cloud, census, _NoDrain(), NoEngine(), self._clock)
        self._started_s = self._clock.monotonic_s()
        self._ready: set[str] = set()  # slots; they stay so: a node may be through before the others are up
        self._lost: dict[str, str] = {}  # slot → why it is given up
        self._replaced: list[Seen] = []
        self._budget = ""  # why no more are replaced
        self._shown: set[str] = set()
        self._told_s = self._started_s
        self._no_queue_told = ""

    def run(self) -> str:
        """The last line, for people. Raises NotReady with what is left; KeyboardInterrupt leaves all as it is."""
        try:
            self._lookout.begin()
            return self._run()
        except KeyboardInterrupt:
            self._out.show(f"interrupted: the fleet is as it is; {self._left()}")
            raise

    def _run(self) -> str:
        error: EngineError | None = None
        go_up = True
        while True:
            if go_up:
                error = self._up()
            failed = self._watch(error)
            if not failed:
                break
            ends = [each for each in failed if each.verdict.ends]
            self._end(ends)
            go_up = self._may_replace(failed, ends)
            if error and not go_up:
                break
        if error or self._lost:
            raise self._not_ready(error)
        return self._done()

    def _up(self) -> EngineError | None:
        """The engine's refusal is kept, not raised: whose pod has failed is seen afterwards."""
        self._config = self._read_config()
        now_s = self._clock.now_s()
        self._out.deployment.tell(
            {BOOT_DEADLINE_VARIABLE: f"{self._deadline_s:.1f}", **self._out.avoid.variable(now_s=now_s)}
        )
        try:
            self._out.deployment.up(refresh=True)  # pods that have ended since, or in a `destroy` that broke off
        except StackLocked:
            raise
        except EngineError as error:
            return error
        return None

    # Watching

    def _watch(self, error: EngineError | None) -> list[Seen]:
        """Look until all wanted pods are ready or given up (an empty answer), or some have failed.

        After an `up` that failed nobody's boot is waited for: the engine has left off. Pods that it named have failed;
        a slot that the state fills and no list shows is looked for until it is proven gone.
        """
        self._lookout.begin_watch()
        names, blind_since_s = self._names(), self._clock.monotonic_s()
        in_state = self._out.deployment.pod_ids() if error else {}
        while open_slots := {slot: name for slot, name in names.items() if slot not in {*self._ready, *self._lost}}:
            try:
                found = self._lookout.look(open_slots, uid=self._config.uid, prefix=self._prefix)
            except (ApiUnavailable, RateLimited) as trouble:
                if self._clock.monotonic_s() - blind_since_s > max(BLIND_FOR_S, self._deadline_s):
                    raise
                self._out.show(f"the cloud's list failed, looking again: {trouble}")
                self._clock.sleep(self._config.poll_interval_seconds)
                continue
            blind_since_s = self._clock.monotonic_s()
            self._tell(found)
            failed = [each for each in _named_by(error, found) if each.verdict.state is State.FAILED]
            if error is None and failed:
                return failed
            if error and not any(each.pod is None and each.slot in in_state and each not in failed for each in found):
                return [each for each in failed if each.pod or each.slot in in_state]
        return []

    def _names(self) -> dict[str, str]:
        config, spec = self._config, pod_spec(self._config)
        return {slot: remote_name(self._prefix, slot, config.uid, spec) for slot in config.wanted_slots}

    def _tell(self, found: Sequence[Seen]) -> None:
        """What is new since the last look; now and then, who is waited for."""
        for each in found:
            if each.pod:
                self._tell_one(each, each.pod)
        if (trouble := self._lookout.queue_trouble) != self._no_queue_told:
            self._no_queue_told = trouble
            silent = f"queue does not answer, reading the pods' logs instead: {trouble}"
            self._out.show(silent if trouble else "queue answers")
        if self._clock.monotonic_s() - self._told_s >= TELL_EVERY_S:
            self._told_s = self._clock.monotonic_s()
            waiting = [each for each in found if each.verdict.state is State.WAITING]
            if waiting:
                self._out.show(f"{len(self._ready)} of {len(self._names())} ready; waiting for {_waited_for(waiting)}")

    def _tell_one(self, each: Seen, pod: PodView) -> None:
        new, is_ready = pod.id not in self._shown, each.verdict.state is State.READY
        self._shown.add(pod.id)
        if is_ready:
            self._ready.add(each.slot)
        if new:
            self._out.show(f"{each.slot}: {'ready, ' if is_ready else ''}{place_of(pod)}, ${pod.cost_usd_per_hr:.2f}/h")
        elif is_ready:
            self._out.show(f"{each.slot}: ready after {span(each.age_s)}")

    # Failed pods

    def _end(self, failed: Sequence[Seen]) -> None:
        """No drain: no node works there. It returns when the pods are proven gone."""
        for each in failed:
            self._out.show(f"{each.slot}: {told(each)}")
        pods = [each.pod for each in failed if each.pod]
        if not pods:
            return
        self._ending.end(pods, why="it never got ready")
        now_s = self._clock.now_s()
        for each in failed:
            if each.pod and each.pod.data_center_id and each.verdict.cause in THE_HOST_IS_TO_BLAME:
                self._out.avoid.add(_host(each.pod, each.verdict, now_s))

    def _may_replace(self, failed: Sequence[Seen], ends: Sequence[Seen]) -> bool:
        """Whether `up` may rent again in place of what was ended; else all that has failed is given up."""
        room = self._config.replacements - len(self._replaced)
        replaceable = list(ends) if len(ends) <= room else []
        if len(ends) > room:
            left = f"{len(ends)} failed and {room} may be replaced: none was" if room else "no replacement is left"
            self._budget = f"{left} (podfleet:replacements is {self._config.replacements})"
        for each in failed:
            if each not in replaceable:
                self._lost[each.slot] = told(each)
        self._replaced += replaceable
        if replaceable:
            self._out.show(f"asking for other hosts: replacement {len(self._replaced)} of {self._config.replacements}")
        return bool(replaceable)

    # The end

    def _done(self) -> str:
        size = len(self._names())
        took = span(self._clock.monotonic_s() - self._started_s)
        return f"{size} pod{'' if size == 1 else 's'} ready in {took}{self._replacements()}"

    def _replacements(self) -> str:
        if not self._replaced:
            return ""
        why = Counter(
            f"{each.verdict.cause}{f' on {place_of(each.pod)}' if each.pod else ''}" for each in self._replaced
        )
        reasons = "; ".join(f"{count} × {text}" if count > 1 else text for text, count in why.items())
        return f" ({len(self._replaced)} replaced: {reasons})"

    def _not_ready(self, error: EngineError | None) -> NotReady:
        took = span(self._clock.monotonic_s() - self._started_s)
        lines = [f"{len(self._ready)} of {len(self._names())} pods ready after {took}{self._replacements()}"]
        lines += [f"{slot}: {reason}" for slot, reason in sorted(self._lost.items())]
        lines += str(error).splitlines() if error else []
        lines += [self._budget] if self._budget else []
        return NotReady("\n".join([*lines, self._left()]), slots=sorted(set(self._names()) - self._ready))

    def _left(self) -> str:
        """What there is now and what it costs, by the last list."""
        with suppress(ProviderError):  # then the last list has to do
            self._lookout.refresh()
        pods = self._lookout.fleet(uid=self._config.uid, prefix=self._prefix)
        usd = sum(pod.cost_usd_per_hr for pod in pods)
        ways = f"`podfleet status {self._stack}` shows them, `podfleet destroy {self._stack}` ends them"
        there = "1 pod is" if len(pods) == 1 else f"{len(pods)} pods are"
        return f"{there} there, ${usd:.2f}/h: {ways}" if pods else "no pod is there"


class _NoDrain:
    """A pod whose node does not work has nothing to finish."""

    def run(self, pods: Sequence[PodView]) -> list[DrainOutcome]:  # noqa: ARG002
        return []


def place_of(pod: PodView) -> str:
    """GPU and place, as far as they are known."""
    return " in ".join(part for part in (pod.gpu or "unknown GPU", pod.data_center_id) if part)


def told(each: Seen) -> str:
    """Why a pod has failed, where it was, and what becomes of it."""
    where = f"{place_of(each.pod)}: " if each.pod else ""
    ended = "; ended" if each.pod and each.verdict.ends else ""
    return f"{where}{each.verdict.cause}: {each.verdict.reason}{ended}"


def _named_by(error: EngineError | None, found: Sequence[Seen]) -> list[Seen]:
    """A pod of which the engine says that it has failed has failed, whatever may still become of it."""

    def judged(each: Seen) -> Seen:
        if not error or not each.pod or each.pod.id not in error.pod_ids or each.verdict.state is not State.WAITING:
            return each
        said = next(line for line in str(error).splitlines() if each.pod.id in line)
        return replace(each, verdict=Verdict(State.FAILED, said, Cause.UNREACHABLE))

    return [judged(each) for each in found]


def _waited_for(waiting: Sequence[Seen]) -> str:
    shown = [f"{each.slot} ({each.pod.status if each.pod else 'not listed'}, {span(each.age_s)})" for each in waiting]
    more = f" and {len(shown) - TELL_AT_MOST} more" if len(shown) > TELL_AT_MOST else ""
    return ", ".join(shown[:TELL_AT_MOST]) + more


def _host(pod: PodView, verdict: Verdict, now_s: float) -> BadHost:
    driver = pod.cuda_version if verdict.cause is Cause.DRIVER else ""
    return BadHost(pod.gpu, pod.cloud, pod.data_center_id, str(verdict.cause), now_s, driver)
