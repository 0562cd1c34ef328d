"""One look for orphans: pods, and what is left of pods elsewhere. Called by `sweeper`; changes nothing.

The order matters: first the cloud's list, then the lock, then the state. What is on the list was there before the lock
was looked at, so an update that begins in between has not made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from podfleet import processes
from podfleet.acl import POD_TAG
from podfleet.config import PodfleetConfig
from podfleet.errors import ProviderError, SignalError, StateUnreadable
from podfleet.podspec import is_account_name, secret_reference
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.wire import PodView
from podfleet.signals.nodes import NodeRegister, Row, silences
from podfleet.signals.tailnet import KEY, TailnetDevices, has_credentials
from podfleet.state import StateFolder, StateView, read_state, state_folder
from podfleet.sweeping.orphans import Kind, PodFacts, Rules, Signals, Verdict, is_node_name, judge, span
from podfleet.workspace import Workspace

DEVICE_OFFLINE_S = 3600.0  # a pod that comes back is back long before
SECONDS_PER_MINUTE = 60.0
HOURS_UNTIL_TOMORROW = 24.0


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. `orphan`: it may be ended; else it is shown only."""

    kind: str
    id: str
    name: str
    reason: str
    orphan: bool
    usd_per_hr: float = 0.0
    ended: bool = False

    @property
    def usd_by_tomorrow(self) -> float:
        """What it costs until this time tomorrow, if nobody ends it."""
        return self.usd_per_hr * HOURS_UNTIL_TOMORROW


@dataclass(frozen=True, slots=True)
class Look:
    """What was found; what could not be looked at, in words; the pods among the findings, by id."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    pods: Mapping[str, PodView] = field(default_factory=dict)
    root: str = ""  # of a state whose lock cannot be seen: it has to be asked for before anything is ended

    @property
    def orphans(self) -> frozenset[tuple[str, str]]:
        return frozenset((found.kind, found.id) for found in self.findings if found.orphan)


@dataclass(frozen=True, slots=True)
class _State:
    """What the state says, and whether an update is at work. `view` is None where it says nothing of this fleet."""

    view: StateView | None
    why: str
    updating: bool | None


class Looker:
    """Looks at one stack's account, server and tailnet."""

    def __init__(
        self, workspace: Workspace, config: PodfleetConfig, env: Mapping[str, str], cloud: Runtime, clock: Clock
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._env = env
        self._cloud = cloud
        self._clock = clock
        self._notes: list[str] = []

    def look(self) -> Look:
        """Raises ProviderError where the pods cannot be listed: then nothing can be said."""
        self._notes = []
        pods = self._cloud.census.now().pods
        state = _state(self._workspace, self._env, self._config.uid)
        rows = self._rows()
        findings = [
            *self._pods(pods, state, rows),
            *self._devices(pods, state),
            *self._registrations(pods, state, rows),
            *self._secrets(pods, state),
            *self._others(state),
        ]
        ids = {found.id for found in findings if found.kind == "pod"}
        ask_for_lock = state.view is not None and state.updating is None
        return Look(
            findings=tuple(findings),
            notes=tuple(self._notes),
            pods={pod.id: pod for pod in pods if pod.id in ids},
            root=state.view.root if state.view and ask_for_lock else "",
        )

    def rules(self) -> Rules:
        """The stack's limits."""
        config = self._config
        boot_minutes = config.reachable_deadline_minutes + config.bootstrap_deadline_minutes
        return Rules(
            uid=config.uid,
            prefix=self._workspace.prefix,
            min_age_s=config.sweep_min_age_minutes * SECONDS_PER_MINUTE,
            silence_s=config.heartbeat_silence_minutes * SECONDS_PER_MINUTE,
            boot_s=max(boot_minutes, config.sweep_min_age_minutes) * SECONDS_PER_MINUTE,
        )

    def _pods(self, pods: Iterable[PodView], state: _State, rows: tuple[Row, ...] | str) -> Iterator[Finding]:
        signals = Signals(
            now_s=self._clock.now_s(),
            known_ids=state.view.ids if state.view else None,
            why_no_state=state.why,
            updating=state.updating,
            silent_s=None if isinstance(rows, str) else silences(rows),
            why_no_nodes=rows if isinstance(rows, str) else "",
        )
        facts = {pod.id: PodFacts(pod.id, pod.name, pod.uid, pod.created_at_s, pod.expires_at_s) for pod in pods}
        for pod in pods:
            verdict = judge(facts[pod.id], facts.values(), signals, self.rules())
            if verdict.kind is not Kind.FINE:
                yield _finding("pod", pod.id, pod.name, verdict, pod.cost_usd_per_hr)

    def _rows(self) -> tuple[Row, ...] | str:
        """The server's rows, or why there are none."""
        silence_s = self._config.heartbeat_silence_minutes * SECONDS_PER_MINUTE
        try:
            with NodeRegister(self._config.queue_url) as register:
                return register.rows(now_s=self._clock.now_s(), silence_s=silence_s)
        except SignalError as error:
            return str(error)

    def _registrations(self, pods: Iterable[PodView], state: _State, rows: tuple[Row, ...] | str) -> Iterator[Finding]:
        if isinstance(rows, str):
            self._notes.append(f"node registrations: not looked at ({rows})")
            return
        names = {pod.name for pod in pods}
        for row in rows:
            if is_node_name(row.name, self._workspace.prefix) and row.name not in names and not row.online:
                yield _finding("node", row.id, row.name, _gone("offline, and its pod is gone", state))

    def _devices(self, pods: Iterable[PodView], state: _State) -> Iterator[Finding]:
        config = self._config
        if not config.tailnet:
            return
        if not has_credentials(self._env):
            self._notes.append(f"tailnet devices: not looked at ({KEY} is not set)")
            return
        names = {pod.name for pod in pods}
        try:
            with TailnetDevices(config.tailscale_url, config.tailnet, self._env) as tailnet:
                devices = tailnet.devices(now_s=self._clock.now_s())
        except SignalError as error:
            self._notes.append(f"tailnet devices: not looked at ({error})")
            return
        for device in devices:
            ours = POD_TAG in device.tags and is_node_name(device.hostname, self._workspace.prefix)
            if not ours or any(device.hostname.startswith(name) for name in names):
                continue
            if device.offline_s is None:
                unknown = Verdict(Kind.UNCLEAR, "its pod is gone; since when it is offline cannot be read")
                yield _finding("device", device.id, device.hostname, unknown)
            elif device.offline_s >= DEVICE_OFFLINE_S:
                reason = f"offline for {span(device.offline_s)}, and its pod is gone"
                yield _finding("device", device.id, device.hostname, _gone(reason, state))

    def _secrets(self, pods: Iterable[PodView], state: _State) -> Iterator[Finding]:
        for secret in self._listed("account secrets", self._cloud.client.list_secrets, state):
            reference = secret_reference(secret.name)
            if any(reference in value for pod in pods if pod.live for _, value in pod.env):
                continue
            yield _finding("secret", secret.id, secret.name, _gone("no live pod uses it, no state knows it", state))

    def _others(self, state: _State) -> Iterator[Finding]:
        for registry in self._listed("registry logins", self._cloud.client.list_registries, state):
            yield _finding("registry", registry.id, registry.name, Verdict(Kind.UNCLEAR, "no state knows it"))
        for volume in self._listed("volumes", self._cloud.client.list_volumes, state):
            reason = "no state knows it; it holds data and costs money: remove it by hand"
            yield _finding("volume", volume.id, volume.name, Verdict(Kind.UNCLEAR, reason))

    def _listed(self, what: str, ask: Callable[[], tuple[T, ...]], state: _State) -> list[T]:
        """Those of our names that the state does not know; none, with a note, where that cannot be told."""
        prefix, uid = self._workspace.prefix, self._config.uid
        try:
            ours = [each for each in ask() if is_account_name(each.name, prefix=prefix, uid=uid)]
        except ProviderError as error:
            self._notes.append(f"{what}: not looked at ({error})")
            return []
        if ours and state.view is None:
            self._notes.append(f"{what}: {len(ours)} of ours, not judged (state not readable: {state.why})")
            return []
        known = state.view.names | state.view.ids if state.view else frozenset()
        return [each for each in ours if each.name not in known and each.id not in known]


def _state(workspace: Workspace, env: Mapping[str, str], uid: str) -> _State:
    folder = state_folder(workspace, env)
    updating = _updating(folder) if folder else None
    try:
        view = read_state(workspace, env)
    except StateUnreadable as error:
        return _State(None, str(error), updating)
    if uid in view.uids:
        return _State(view, "", updating)
    # another machine's checkout has a state as well, and an empty one: it must not speak for this fleet
    return _State(None, "the state here knows no fleet of this uid", updating or None)


def _updating(folder: StateFolder) -> bool | None:
    """Whether somebody alive holds the lock; None where this machine does not keep the state."""
    if not folder.checkpoint.exists():
        return None
    here = processes.this_host()
    for lock in folder.locks():
        seen = processes.look(lock.holder.pid) if lock.holder else None
        if lock.holder is None or processes.why_not_dead(lock.holder, host=here, seen=seen):
            return True
    return False


def _gone(reason: str, state: _State) -> Verdict:
    return Verdict(Kind.UNCLEAR, f"{reason}; an update is at work") if state.updating else Verdict(Kind.ORPHAN, reason)


def _finding(kind: str, id_: str, name: str, verdict: Verdict, usd_per_hr: float = 0.0) -> Finding:
    return Finding(kind, id_, name, verdict.reason, orphan=verdict.kind is Kind.ORPHAN, usd_per_hr=usd_per_hr)
