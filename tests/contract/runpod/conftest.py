"""The RunPod provider against localcloud: real HTTP, real SSH, pods that are processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from localcloud.testing import RunningCloud, running
from podfleet.providers.runpod.client import Access, Patience, RunpodClient
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.engine import NoEngine
from podfleet.providers.runpod.runtime import Runtime, build
from podfleet.providers.runpod.settings import ProviderSettings

PRINTS_ITS_KEY = 'echo "podfleet-node host-key $(cat $PODFLEET_ROOT/etc/ssh/ssh_host_ed25519_key.pub)"; exec sleep 600'
QUICK: dict[str, Any] = {
    "pod_command": ["sh", "-c", PRINTS_ITS_KEY],
    "boot_s": 0.2,
    "ssh_s": 0.1,
    "grace_s": 1.0,
    "page_size": 2,
}


@pytest.fixture(scope="module")
def module_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    with running(tmp_path_factory.mktemp("cloud"), **QUICK) as cloud:
        yield cloud


@pytest.fixture
def cloud(module_cloud: RunningCloud) -> Iterator[RunningCloud]:
    """Empty before each test."""
    module_cloud.release()
    module_cloud.reset()
    yield module_cloud
    module_cloud.release()


@pytest.fixture
def client(cloud: RunningCloud) -> Iterator[RunpodClient]:
    client = RunpodClient(Access(cloud.runpod_url, cloud.api_key), patience=Patience(create_read_s=3.0))
    yield client
    client.close()


@pytest.fixture(scope="session")
def ssh_key() -> tuple[str, str]:
    """(private, public)"""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key().decode(), key.export_public_key().decode().strip()


@pytest.fixture
def provider(cloud: RunningCloud, client: RunpodClient, ssh_key: tuple[str, str]) -> Callable[..., Runtime]:
    """The provider's parts with seconds instead of minutes."""

    def make(**more: Any) -> Runtime:
        quick = {"absence_interval_s": 0.2, "poll_interval_s": 0.1, "reconcile_s": 1.0, "drain_deadline_s": 5.0}
        settings = ProviderSettings(
            api_key=cloud.api_key, base_url=cloud.runpod_url, ssh_private_key=ssh_key[0], **{**quick, **more}
        )
        return build(settings, client, NoEngine(), RealClock())

    return make


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path
