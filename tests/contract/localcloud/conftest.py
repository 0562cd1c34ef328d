"""One cloud per test process, emptied before each test; pods run a few shell words instead of the node."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, running

A4000 = "NVIDIA RTX A4000"
SLEEPER = ["/bin/sh", "-c", "echo started; exec sleep 600"]


@pytest.fixture(scope="session")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    folder = tmp_path_factory.mktemp("a cloud") / "with blanks in its path"
    with running(
        folder,
        boot_s=0.1,
        ssh_s=0.0,
        runtime_lag_s=0.0,
        restart_backoff_s=0.05,
        grace_s=2.0,
        pod_command=SLEEPER,
        page_size=100,
    ) as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: RunningCloud) -> Iterator[RunningCloud]:
    shared_cloud.reset()
    yield shared_cloud
    shared_cloud.reset()


@pytest.fixture
def api(cloud: RunningCloud) -> Iterator[httpx.Client]:
    with cloud.client() as client:
        yield client


@pytest.fixture
def create(api: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Creates a pod on the cheapest GPU; its JSON."""

    def create_pod(name: str = "demo-local-slot-01-aaaaaaaa", **more: Any) -> dict[str, Any]:
        answer = api.post("/v2/pods", json={"name": name, "image": "podfleet/node:1", "gpu": {"id": A4000}, **more})
        assert answer.status_code == 201, answer.text
        pod: dict[str, Any] = answer.json()
        return pod

    return create_pod
