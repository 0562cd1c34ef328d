"""Observe, decide, act: one tick of the reconciler. Called by `podfleet reconcile`.

Observing includes a refresh of the state. Whatever cannot be read stops the tick before anything is touched, and so
does another reconciler that was faster. Every number comes out of `scaling.decide`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podfleet.errors import EngineError, Held, ProviderError, SignalError
from podfleet.logs import get_logger
from podfleet.podspec import slot_of
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.prices import affordable_pods
from podfleet.scaling import BUSIEST_FIRST, Decision, Demand, Slot, SlotState, decide, policy_of

if TYPE_CHECKING:
    from podfleet.config import PodfleetConfig
    from podfleet.deploy import Deployment
    from podfleet.providers.runpod.client import RunpodClient
    from podfleet.providers.runpod.wire import PodView
    from podfleet.signals.queue import Node, QueueSignal

log = get_logger(__name__)
BOOTING = frozenset({"PROVISIONING", "STARTING"})


@dataclass(frozen=True, slots=True)
class Observation:
    """What a decision rests on."""

    demand: Demand
    fleet: tuple[Slot, ...]
    affordable_pods: int | None = None


def observe(
    config: PodfleetConfig, *, prefix: str, cloud: RunpodClient, queue: QueueSignal, now_s: float
) -> Observation:
    """Queue, nodes and pods as they are now. Raises SignalError or ProviderError: then nothing may change."""
    demand = queue.demand(now_s=now_s)
    pods = [pod for pod in cloud.list_pods() if is_ours(pod, uid=config.uid, prefix=prefix)]
    fleet = fleet_state(config.wanted_slots, pods, queue.nodes(), prefix=prefix)
    return Observation(demand, fleet, affordable_pods(cloud, config, prefix=prefix))


def fleet_state(
    slots: Iterable[str], pods: Iterable[PodView], nodes: Mapping[str, Node], *, prefix: str
) -> tuple[Slot, ...]:
    """The state of each wanted slot: its busiest pod's, should it have two; a slot without a live pod is gone."""
    states: dict[str, list[SlotState]] = {}
    for pod in pods:
        states.setdefault(slot_of(pod.name, prefix), []).append(_state(pod, nodes))
    return tuple(Slot(slot, min(states.get(slot, [SlotState.GONE]), key=BUSIEST_FIRST.index)) for slot in slots)


def _state(pod: PodView, nodes: Mapping[str, Node]) -> SlotState:
    if not pod.live:
        return SlotState.GONE
    node = nodes.get(pod.name)
    if pod.status in BOOTING or node is None or not node.online:
        return SlotState.BOOTING
    return SlotState.IDLE if node.idle else SlotState.BUSY


def tick(
    config: PodfleetConfig,
    *,
    prefix: str,
    deployment: Deployment | None,
    cloud: RunpodClient,
    queue: QueueSignal,
    now_s: float,
) -> Decision:
    """One round; answers the decision. Without a `deployment` it is a dry run: nothing is changed, not even the state.

    Raises Held where something cannot be seen, StaleGeneration where somebody else was faster.
    """
    try:
        generation = _refreshed(deployment) if deployment else ""
        seen = observe(config, prefix=prefix, cloud=cloud, queue=queue, now_s=now_s)
    except (SignalError, ProviderError, EngineError) as error:
        raise Held(len(config.wanted_slots), str(error)) from error
    decision = decide(seen.demand, seen.fleet, policy_of(config, seen.affordable_pods), now_s=now_s)
    log.info(
        "scaling.decided",
        size_before=len(seen.fleet),
        size=decision.size,
        slots=list(decision.slots),
        binding=decision.binding,
        reason=decision.reason,
        claimable_jobs=seen.demand.claimable_jobs,
        running_jobs=seen.demand.running_jobs,
    )
    if deployment and decision.changes(seen.fleet):
        deployment.resize(decision.slots, decision=decision.reason, expect_generation=generation)
    return decision


def _refreshed(deployment: Deployment) -> str:
    """The state as the cloud is now; the generation that it has. Read before we look, so that no change is missed."""
    deployment.refresh()
    return deployment.generation()
