"""One look at a stack for `podfleet status`: cloud, queue, bills and balance, all asked at the same time.

Reads only, and starts no engine. Without the cloud's list there is no status; each of the others may be silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from podfleet.config import PodfleetConfig
from podfleet.errors import ProviderError, SignalError
from podfleet.overview import Overview, drift, money, rows
from podfleet.providers.runpod.census import is_ours
from podfleet.providers.runpod.spend_book import runs_in
from podfleet.providers.runpod.wire import PodView
from podfleet.providers.runpod.wire_account import Balance, BillRecord
from podfleet.signals.queue import Node
from podfleet.workspace import Workspace

DAY_S = 24 * 3600.0


class Cloud(Protocol):
    """The part of the client that is needed here."""

    def list_pods(self) -> tuple[PodView, ...]: ...
    def pod_billing(self, *, start_s: float, end_s: float) -> tuple[BillRecord, ...]: ...
    def balance(self) -> Balance | None: ...


class Queue(Protocol):
    """`signals.queue.QueueSignal`."""

    def nodes(self) -> dict[str, Node]: ...


def look(workspace: Workspace, config: PodfleetConfig, cloud: Cloud, queue: Queue, *, now_s: float) -> Overview:
    """Raises what the list of pods raises."""
    with ThreadPoolExecutor(4) as asking:
        listed = asking.submit(cloud.list_pods)
        heard = asking.submit(_nodes, queue)
        billed = asking.submit(_bills, cloud, now_s)
        balance = asking.submit(cloud.balance)
    pods = [pod for pod in listed.result() if is_ours(pod, uid=config.uid, prefix=workspace.prefix)]
    nodes, queue_trouble = heard.result()
    seen = runs_in(str(workspace.state_dir), config.uid)
    return Overview(
        stack=workspace.stack,
        wanted_slots=config.wanted_slots,
        pods=rows(pods, nodes, prefix=workspace.prefix, now_s=now_s),
        drift=drift(config, pods, prefix=workspace.prefix),
        money=money(pods, billed.result(), seen, balance.result(), now_s=now_s),
        queue_trouble=queue_trouble,
        decision=config.decision,
    )


def _nodes(queue: Queue) -> tuple[Mapping[str, Node] | None, str]:
    try:
        return queue.nodes(), ""
    except SignalError as error:
        return None, str(error)


def _bills(cloud: Cloud, now_s: float) -> Mapping[str, float] | None:
    try:
        records = cloud.pod_billing(start_s=now_s - DAY_S, end_s=now_s)
    except ProviderError:
        return None
    sums: dict[str, float] = {}
    for record in records:
        sums[record.pod_id] = sums.get(record.pod_id, 0.0) + record.usd
    return sums
