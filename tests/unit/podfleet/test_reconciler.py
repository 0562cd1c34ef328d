"""One tick with a real queue client and scripted answers: what it sees, what it holds back for, what it asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx
import pytest

from podfleet.config import PodfleetConfig
from podfleet.errors import ApiUnavailable, EngineError, Held, StaleGeneration
from podfleet.providers.runpod.wire import GpuOffer, PodView
from podfleet.reconciler import tick
from podfleet.scaling import Decision
from podfleet.signals.queue import QueueSignal

PREFIX, UID = "podfleet-local-", "local-00000001"
CONFIG = PodfleetConfig.model_validate(
    {
        "uid": UID,
        "pods": 2,
        "image": "i:1",
        "gpuTypes": ["NVIDIA L4"],
        "queueUrl": "http://127.0.0.1:9",
        "bootstrap": "none",
        "maxPods": 6,
    }
)


@dataclass
class Cloud:
    """Lists what it is told to, or fails."""

    pods: list[PodView] = field(default_factory=list)
    error: Exception | None = None
    usd_per_hr: float = 0.5

    def list_pods(self) -> tuple[PodView, ...]:
        if self.error:
            raise self.error
        return tuple(self.pods)

    def gpu_offers(self, *, cloud: str, min_cuda_version: str = "") -> tuple[GpuOffer, ...]:
        return (GpuOffer("NVIDIA L4", "L4", 24, cloud, self.usd_per_hr, "HIGH", ()),)


@dataclass
class Deployment:
    """Writes down what it is asked for."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    refresh_error: Exception | None = None
    up_error: Exception | None = None

    def refresh(self) -> None:
        if self.refresh_error:
            raise self.refresh_error

    def generation(self) -> str:
        return "seen"

    def resize(self, slots: tuple[str, ...], *, decision: str, expect_generation: str) -> None:
        self.asked.append((slots, expect_generation))
        if self.up_error:
            raise self.up_error


def name(slot: str) -> str:
    return f"{PREFIX}{slot}-0badcafe"


def two_pods() -> Cloud:
    return Cloud([PodView(slot, name(slot), "RUNNING", uid=UID) for slot in ("slot-01", "slot-02")])


def queue_of(*, waiting: int = 0, held: dict[str, int] | None = None, status: int = 200) -> httpx.MockTransport:
    """A queue server: so many jobs wait; nodes by slot with the jobs that they hold."""
    nodes = {"slot-01": 0, "slot-02": 0} if held is None else held
    bodies = {
        "/api/queue": {"jobs": [{"status": "queued"}] * waiting},
        "/api/queue/status": {"transcribe_queue": {"running": sum(nodes.values())}},
        "/api/nodes": {
            "nodes": [{"name": name(slot), "status": "online", "held_jobs": jobs} for slot, jobs in nodes.items()]
        },
    }
    return httpx.MockTransport(lambda request: httpx.Response(status, text=json.dumps(bodies[request.url.path])))


def run(
    deployment: Deployment | None, cloud: Cloud, transport: httpx.BaseTransport, config: PodfleetConfig = CONFIG
) -> Decision:
    with QueueSignal(config.queue_url, transport=transport) as queue:
        return tick(
            config,
            prefix=PREFIX,
            deployment=cast("Any", deployment),
            cloud=cast("Any", cloud),
            queue=queue,
            now_s=1_000.0,
        )


def down(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("[Errno 111] Connection refused")


@pytest.mark.parametrize(
    ("transport", "said"),
    [
        (httpx.MockTransport(down), r"http://127\.0\.0\.1:9/api/queue: .*refused"),
        (queue_of(status=500), "/api/queue answered 500"),
        (httpx.MockTransport(lambda _: httpx.Response(200, text="<html>")), "/api/queue: not understood"),
    ],
)
def test_a_queue_that_cannot_be_read_holds_the_size(transport: httpx.BaseTransport, said: str) -> None:
    deployment = Deployment()
    with pytest.raises(Held, match=f"held at 2 pods, nothing was changed: .*{said}") as caught:
        run(deployment, two_pods(), transport)
    assert deployment.asked == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("deployment", "cloud"),
    [
        (Deployment(refresh_error=EngineError("one line\nanother")), two_pods()),
        (Deployment(), Cloud(error=ApiUnavailable("RunPod says 500: x"))),
    ],
)
def test_a_state_or_a_cloud_that_cannot_be_read_holds_the_size(deployment: Deployment, cloud: Cloud) -> None:
    with pytest.raises(Held) as caught:
        run(deployment, cloud, queue_of(waiting=40))
    assert deployment.asked == []
    assert "\n" not in str(caught.value)


def test_the_generation_that_it_saw_goes_with_its_up() -> None:
    deployment = Deployment()
    run(deployment, two_pods(), queue_of(waiting=12))
    assert deployment.asked == [(("slot-01", "slot-02", "slot-03"), "seen")]
    refused = Deployment(up_error=StaleGeneration())
    with pytest.raises(StaleGeneration, match="look again"):
        run(refused, two_pods(), queue_of(waiting=12))


def test_no_more_pods_are_asked_for_than_the_limit_pays_for() -> None:
    cloud = two_pods()
    cloud.pods = [replace(pod, cost_usd_per_hr=1.0) for pod in cloud.pods]
    cloud.usd_per_hr = 1.5
    decision = run(Deployment(), cloud, queue_of(waiting=40))
    assert decision.size == 4
    assert "podfleet:maxUsdPerHour pays for 4" in decision.reason


def test_only_idle_pods_go() -> None:
    deployment = Deployment()
    decision = run(deployment, two_pods(), queue_of(held={"slot-01": 0, "slot-02": 1}))
    assert decision.slots == ("slot-02",)
    assert deployment.asked == [(("slot-02",), "seen")]


def test_a_dead_double_does_not_hide_the_pod_that_works() -> None:
    cloud = two_pods()
    cloud.pods.append(PodView("double", name("slot-02"), "EXITED", uid=UID))
    decision = run(Deployment(), cloud, queue_of(held={"slot-01": 0, "slot-02": 1}))
    assert decision.slots == ("slot-02",)


def test_a_node_that_registered_twice_works_where_any_of_its_rows_does() -> None:
    rows = [
        {"name": name("slot-01"), "status": "online", "held_jobs": 1},
        {"name": name("slot-01"), "status": "online", "held_jobs": 0},
        {"name": name("slot-02"), "status": "offline", "held_jobs": 3},
        {"name": name("slot-02"), "status": "online", "held_jobs": 0},
    ]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"nodes": rows}))
    with QueueSignal("http://127.0.0.1:9", transport=transport) as queue:
        nodes = queue.nodes()
    assert {key: node.idle for key, node in nodes.items()} == {name("slot-01"): False, name("slot-02"): True}


@pytest.mark.parametrize(
    ("deployment", "config"), [(None, CONFIG), (Deployment(), CONFIG.model_copy(update={"enabled": False}))]
)
def test_a_dry_run_and_a_policy_that_is_off_change_nothing(
    deployment: Deployment | None, config: PodfleetConfig
) -> None:
    run(deployment, two_pods(), queue_of(waiting=40), config)
    assert deployment is None or deployment.asked == []


def test_a_pod_of_another_fleet_is_no_slot_of_ours() -> None:
    cloud = two_pods()
    cloud.pods = [replace(cloud.pods[0], uid="local-99999999"), cloud.pods[1]]
    deployment = Deployment()
    run(deployment, cloud, queue_of(waiting=1))
    assert deployment.asked == [(("slot-02",), "seen")]
