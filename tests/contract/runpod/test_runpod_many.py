"""Many pods at once, without the engine: how many calls they cost, and that a tight limit refuses none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcloud.testing import RunningCloud, running
from podfleet.providers.runpod.client import Access, RunpodClient
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.core import RentSpec
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.providers.runpod.spend_rules import SpendLimits

UID, MANY = "m-00000001", 24
PRINTS_ITS_KEY = 'echo "podfleet-node host-key $(cat $PODFLEET_ROOT/etc/ssh/ssh_host_ed25519_key.pub)"; exec sleep 600'


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[RunningCloud]:
    """Room for all, pages for all."""
    command = ["sh", "-c", PRINTS_ITS_KEY]
    quick = {"boot_s": 0.2, "ssh_s": 0.1, "grace_s": 1.0}
    with running(tmp_path / "cloud", pod_command=command, stock_default=MANY, **quick) as cloud:
        yield cloud


@pytest.fixture
def runtime(cloud: RunningCloud) -> Iterator[Runtime]:
    settings = ProviderSettings(
        api_key=cloud.api_key,
        base_url=cloud.runpod_url,
        absence_interval_s=0.5,
        poll_interval_s=0.5,
        drain_deadline_s=0.0,
        limits=SpendLimits(max_pods=MANY, max_usd_per_hour=0.0, max_usd_per_day=0.0),
    )
    client = RunpodClient(Access(cloud.runpod_url, cloud.api_key))
    yield build(settings, client, NoEngine(), RealClock())
    client.close()


def spec(number: int) -> RentSpec:
    slot = f"slot-{number:02}"
    return RentSpec(
        name=f"podfleet-m-{slot}-0badcafe",
        uid=UID,
        slot=slot,
        spec_hash="0badcafe",
        image="img:1",
        gpu_types=("NVIDIA L4",),
        cloud="SECURE",
        data_center_ids=(),
        min_cuda_version="",
        disk_gb=20,
        ports=("22/tcp",),
        env={},
    )


def calls(cloud: RunningCloud) -> tuple[Counter[str], int]:
    """Calls by operation, and how many were refused."""
    events = cloud.events("request")
    return Counter(event["op"] for event in events), sum(event["status"] == 429 for event in events)


def all_at_once(work: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(MANY) as threads:
        return list(threads.map(work, range(MANY)))


def test_a_pod_costs_one_post_one_log_and_one_end_and_looks_are_shared(cloud: RunningCloud, runtime: Runtime) -> None:
    ids: list[str] = [""] * MANY

    def rent(number: int) -> None:
        ids[number] = runtime.pods.create(spec(number)).id
        runtime.reachable.wait(ids[number], deadline_s=60)

    all_at_once(rent)
    all_at_once(lambda number: runtime.pods.delete(ids[number], uid=UID))
    found, refused = calls(cloud)
    assert cloud.live_pods() == []
    assert refused == 0
    assert found["pods.create"] == found["pods.delete"] == MANY
    assert found["pods.get"] == 0
    assert found["pods.logs"] <= 1.5 * MANY, "once per pod; again only where its key came late"
    assert found["pods.list"] <= MANY
    assert sum(found.values()) <= 5 * MANY
