"""The parts put together, once per process and settings, and shared by all resources: one client, one census.

Called by the shells (`shell.Shell.core`).
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from podfleet.providers.runpod.catalogue import Catalogue
from podfleet.providers.runpod.census import Census
from podfleet.providers.runpod.client import RunpodClient
from podfleet.providers.runpod.clock import Clock, RealClock
from podfleet.providers.runpod.core import PodCore
from podfleet.providers.runpod.drain import Drain
from podfleet.providers.runpod.ending import Ending, Watch
from podfleet.providers.runpod.engine import watch_engine
from podfleet.providers.runpod.fleet import GuardCore, LateLooks, SweepCore
from podfleet.providers.runpod.leftovers import LeftoverCore
from podfleet.providers.runpod.lookup import Lookup
from podfleet.providers.runpod.registries import RegistryCore
from podfleet.providers.runpod.renting import Means, RentPolicy
from podfleet.providers.runpod.secrets import SecretCore
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.providers.runpod.spend import Bills, SpendGuard, Spends, terms_of
from podfleet.providers.runpod.spend_book import book_in
from podfleet.providers.runpod.ssh_port import answers
from podfleet.providers.runpod.volumes import VolumeCore
from podfleet.providers.runpod.waiting import Limits, ReachableCore
from podfleet.providers.runpod.wire import LogLine, SshAddress

MAX_RECONCILE_PAUSE_S = 5.0
LATE_LOOKS = 4
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a provider of ours can do."""

    client: RunpodClient
    census: Census
    pods: PodCore
    guard: GuardCore
    sweep: SweepCore
    reachable: ReachableCore
    secrets: SecretCore
    ending: Ending
    spend: Spends
    registries: RegistryCore
    volumes: VolumeCore
    leftovers: LeftoverCore


def runtime(settings: ProviderSettings) -> Runtime:
    """The one of this process; four worker threads may ask at the same time."""
    with _LOCK:
        return _runtime(settings)


@lru_cache(maxsize=4)
def _runtime(settings: ProviderSettings) -> Runtime:
    clock = RealClock()
    return build(settings, RunpodClient(settings.access, clock=clock), watch_engine(), clock)


def build(
    settings: ProviderSettings,
    client: RunpodClient,
    engine: Watch,
    clock: Clock,
    *,
    jitter: Callable[[], float] = random.random,
    ssh_answers: Callable[[SshAddress], bool] = answers,
) -> Runtime:
    """Wire up the parts; tests bring their own client, engine and clock."""
    census = Census(client.list_pods, looks=settings.looks, clock=clock, gap_s=client.list_gap_s)

    def read_logs(pod_id: str, tail: int) -> list[LogLine]:
        return client.pod_logs(pod_id, tail=tail)

    drain = Drain(read_logs, private_key=settings.ssh_private_key, deadline_s=settings.drain_deadline_s)
    ending = Ending(client, census, drain, engine, clock)
    pause_s = min(MAX_RECONCILE_PAUSE_S, settings.poll_interval_s)
    spend = _spend_guard(settings, client, census, clock)
    lookup = Lookup(clock, settings.reconcile_s, pause_s)
    volumes = VolumeCore(client, lookup, engine, clock)
    catalogue = Catalogue(client, clock, max_age_s=settings.poll_interval_s)
    return Runtime(
        client=client,
        census=census,
        pods=PodCore(
            client, census, ending, engine, clock, _rent_policy(settings, pause_s), Means(catalogue, spend, jitter)
        ),
        guard=GuardCore(census, ending, lambda: uuid.uuid4().hex, _late_looks(settings, clock)),
        sweep=SweepCore(census, ending),
        reachable=ReachableCore(
            client, census, engine, clock, Limits(settings.boot_deadline_s, settings.min_cuda_version), ssh_answers
        ),
        secrets=SecretCore(client),
        spend=spend,
        registries=RegistryCore(client, lookup, engine),
        volumes=volumes,
        leftovers=LeftoverCore(client, volumes.delete),
        ending=ending,
    )


def _spend_guard(settings: ProviderSettings, client: RunpodClient, census: Census, clock: Clock) -> SpendGuard:
    return SpendGuard(
        settings.limits,
        census,
        Bills(client, clock),
        lambda uid: book_in(settings.state_dir, uid, clock),
        clock,
        terms_of(absence_interval_s=settings.absence_interval_s, reconcile_s=settings.reconcile_s),
    )


def _rent_policy(settings: ProviderSettings, pause_s: float) -> RentPolicy:
    return RentPolicy(
        settings.reconcile_s,
        pause_s,
        settings.max_runtime_s,
        rounds=settings.create_rounds,
        round_wait_s=settings.create_round_wait_s,
        rules=settings.rules,
        avoid=settings.avoid,
    )


def _late_looks(settings: ProviderSettings, clock: Clock) -> LateLooks | None:
    if not settings.interrupted_at_s:
        return None
    until_s = clock.monotonic_s() + settings.interrupted_at_s - clock.now_s() + settings.reconcile_s
    return LateLooks(clock, until_s, settings.reconcile_s / LATE_LOOKS)
