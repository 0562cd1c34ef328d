"""`podfleet sweep`: look for orphans, look again, end what both looks call one. Called by the command line.

It rests on nothing that a fleet rests on: no engine, no state, no reconciler has to be there. What it cannot see, it
shows and does not end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from podfleet.config import PodfleetConfig
from podfleet.errors import EngineError, PodfleetError, StackLocked
from podfleet.providers.runpod.clock import Clock, RealClock
from podfleet.providers.runpod.runtime import Runtime
from podfleet.signals.nodes import NodeRegister
from podfleet.signals.tailnet import TailnetDevices
from podfleet.stackcloud import stack_cloud
from podfleet.state import is_locked, refresh_root
from podfleet.sweeping.looks import SECONDS_PER_MINUTE, Finding, Look, Looker
from podfleet.sweeping.orphans import span
from podfleet.workspace import Workspace

NOTHING, NOT_ENDED = 0, 3  # exit codes
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found and what became of it; what could not be looked at."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return NOT_ENDED if any(not found.ended for found in self.findings) else NOTHING


class Sweeper:
    """Looks and ends for one stack."""

    def __init__(
        self,
        workspace: Workspace,
        config: PodfleetConfig,
        env: Mapping[str, str],
        cloud: Runtime,
        *,
        clock: Clock,
        show: Show,
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._env = env
        self._cloud = cloud
        self._clock = clock
        self._show = show
        self._looker = Looker(workspace, config, env, cloud, clock)

    def sweep(self, *, end: bool) -> Report:
        """One round; without `end` it is one look. Raises ProviderError where the pods cannot be listed."""
        first = self._looker.look()
        if not end or not first.orphans:
            return Report(first.findings, first.notes)
        apart_s = self._config.sweep_looks_apart_minutes * SECONDS_PER_MINUTE
        self._show(f"{len(first.orphans)} found; the second look is in {span(apart_s)}")
        self._clock.sleep(apart_s)
        second = self._looker.look()
        both = first.orphans & second.orphans
        chosen = [found for found in second.findings if (found.kind, found.id) in both]
        try:
            self._must_be_unlocked(second)
        except EngineError as error:
            return Report(second.findings, (*second.notes, f"nothing was ended: {error}"))
        done, troubles = self._end(chosen, second)
        findings = tuple(replace(found, ended=(found.kind, found.id) in done) for found in second.findings)
        return Report(findings, (*second.notes, *troubles))

    def _must_be_unlocked(self, look: Look) -> None:
        """A state that somebody else keeps shows its lock to the engine alone."""
        if not look.root:
            return
        done = refresh_root(self._workspace, self._env, look.root, "--skip-pending-creates")
        if is_locked(done):
            raise StackLocked("an update of this stack is at work")
        if done.returncode:
            raise EngineError("whether an update of this stack is at work cannot be seen: the engine fails")

    def _end(self, chosen: list[Finding], look: Look) -> tuple[set[tuple[str, str]], list[str]]:
        """All pods in one go, under one drain; then the rest. What fails is said, and stays."""
        done: set[tuple[str, str]] = set()
        troubles: list[str] = []
        pods = [found for found in chosen if found.kind == "pod"]
        rest = [found for found in chosen if found.kind != "pod"]
        views = [look.pods[found.id] for found in pods]
        steps: list[tuple[list[Finding], Callable[[], None]]] = [
            (pods, lambda: self._cloud.ending.end(views, why="orphans"))
        ]
        steps += [([found], lambda found=found: self._remove(found)) for found in rest]  # type: ignore[misc]
        for findings, step in steps:
            try:
                step()
                done |= {(found.kind, found.id) for found in findings}
            except PodfleetError as error:
                troubles.append(f"{', '.join(found.name for found in findings)}: not ended: {error}")
        return done, troubles

    def _remove(self, found: Finding) -> None:
        match found.kind:
            case "secret":
                self._cloud.client.delete_secret(found.id)
            case "node":
                with NodeRegister(self._config.queue_url) as register:
                    register.forget(found.id)
            case "device":
                with TailnetDevices(self._config.tailscale_url, self._config.tailnet, self._env) as tailnet:
                    tailnet.remove(found.id)


@contextmanager
def sweeper(workspace: Workspace, env: Mapping[str, str], *, show: Show) -> Iterator[Sweeper]:
    """For the command line. Raises ConfigError."""
    clock, config = RealClock(), workspace.config()
    with stack_cloud(workspace, config, env, clock=clock) as cloud:
        yield Sweeper(workspace, config, env, cloud, clock=clock, show=show)
