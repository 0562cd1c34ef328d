"""`up --wait` against the stand-in cloud, without an engine: pods that print, hosts that fail, logs for a queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localcloud.testing import RunningCloud, running
from podfleet.avoid import AvoidList
from podfleet.awaiting import Outside, UpAndWait
from podfleet.config import PodfleetConfig
from podfleet.errors import NotReady
from podfleet.podspec import pod_spec, remote_name, spec_hash
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.signals.queue import QueueSignal

UID, PREFIX = "dev-00000001", "podfleet-dev-"
SAYS_READY = "echo podfleet-node phase connecting; echo podfleet-node ready node=1 metrics=- engine=x; exec sleep 600"
SILENT = "echo podfleet-node phase smoke; exec sleep 600"


@pytest.fixture(scope="module")
def nodes_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    command = ["sh", "-c", SAYS_READY]
    with running(tmp_path_factory.mktemp("cloud"), pod_command=command, boot_s=0.2, ssh_s=0.0, grace_s=1.0) as cloud:
        yield cloud


@dataclass
class Engine:
    """Rents what is wanted, as the provider does; nothing else of an engine is needed here."""

    parts: Runtime
    config: PodfleetConfig
    told: dict[str, str] = field(default_factory=dict)

    def tell(self, variables: Mapping[str, str]) -> None:
        self.told.update(variables)

    def up(self, *, refresh: bool) -> None:
        spec = pod_spec(self.config)
        for slot in self.config.wanted_slots:
            self.parts.pods.create(
                RentSpec(
                    name=remote_name(PREFIX, slot, UID, spec),
                    uid=UID,
                    slot=slot,
                    spec_hash=spec_hash(UID, spec),
                    image=spec.image,
                    gpu_types=spec.gpu_types,
                    cloud=spec.cloud,
                    data_center_ids=(),
                    min_cuda_version="12.4",
                    disk_gb=10,
                    ports=(),
                )
            )

    def pod_ids(self) -> dict[str, str]:
        return {}


Wait = Callable[..., str]


@pytest.fixture
def wait(nodes_cloud: RunningCloud, tmp_path: Path) -> Iterator[Wait]:
    """Run one; the queue's address leads nowhere, as for somebody outside the tailnet."""
    client = RunpodClient(Access(nodes_cloud.runpod_url, nodes_cloud.api_key))
    settings = ProviderSettings(
        api_key=nodes_cloud.api_key,
        base_url=nodes_cloud.runpod_url,
        absence_interval_s=0.2,
        poll_interval_s=0.1,
        reconcile_s=1.0,
    )

    said: list[str] = []

    def go(**values: object) -> str:
        wishes = {
            "uid": UID,
            "image": "example/node:1",
            "gpuTypes": ["NVIDIA L4"],
            "queueUrl": "http://127.0.0.1:9",
            "bootstrap": "none",
            "minCudaVersion": "12.4",
            "absenceIntervalSeconds": 0.2,
            "pollIntervalSeconds": 0.1,
            "reachableDeadlineMinutes": 0.1,
            **values,
        }
        config = PodfleetConfig.model_validate(wishes)
        engine = Engine(build(settings, client, NoEngine(), RealClock()), config)
        with QueueSignal(config.queue_url) as queue:
            outside = Outside(engine, client, queue, AvoidList(tmp_path / "avoid.json"), RealClock(), said.append)
            return UpAndWait(lambda: config, stack="dev", prefix=PREFIX, outside=outside).run()

    yield go
    client.close()
    nodes_cloud.release()
    nodes_cloud.reset()


def test_the_ready_line_in_the_log_will_do(nodes_cloud: RunningCloud, wait: Wait) -> None:
    assert wait(pods=2).startswith("2 pods ready in ")
    assert len(nodes_cloud.live_pods()) == 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("driver-old", "driver too old"),
        ("boot-error", "not alive"),
        ("boot-exited", "not alive"),
        ("boot-null", "no container"),
    ],
)
def test_each_way_to_fail_at_boot_is_replaced(nodes_cloud: RunningCloud, wait: Wait, kind: str, said: str) -> None:
    nodes_cloud.fault_kind(kind, name_contains="slot-02")
    assert f"(1 replaced: {said} on NVIDIA L4 in " in wait(pods=2)
    assert len(nodes_cloud.live_pods()) == 2
    assert len(nodes_cloud.pods()) == 3


def test_a_node_that_never_reports_is_ended_with_its_last_phase(nodes_cloud: RunningCloud, wait: Wait) -> None:
    nodes_cloud.settings(pod_command=["sh", "-c", SILENT])
    try:
        with pytest.raises(NotReady, match=r"its node has not reported for .* \(last phase: smoke\)") as caught:
            wait(pods=1, replacements=0, reachableDeadlineMinutes=0.04)
    finally:
        nodes_cloud.settings(pod_command=["sh", "-c", SAYS_READY])
    assert caught.value.slots == ("slot-01",)
    assert str(caught.value).splitlines()[-1] == "no pod is there"
    assert nodes_cloud.live_pods() == []


def test_a_host_that_dies_while_others_boot_is_replaced(nodes_cloud: RunningCloud, wait: Wait) -> None:
    nodes_cloud.fault_kind("slow-pull", name_contains="slot-02", delay_s=2.0)
    nodes_cloud.settings(pod_command=["sh", "-c", f"sleep 0.5; {SAYS_READY}"])
    nodes_cloud.fault_kind("host-death", name_contains="slot-01", delay_s=0.1)
    try:
        assert "(1 replaced: not alive on NVIDIA L4 in " in wait(pods=2)
    finally:
        nodes_cloud.settings(pod_command=["sh", "-c", SAYS_READY])
