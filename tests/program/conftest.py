"""The program under Pulumi's mocks: no engine, no plugin, no network."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import config as engine_config
from pulumi.runtime import mocks

from podfleet.components import notices
from podfleet.providers.runpod import capacity, prices
from podfleet.providers.runpod.wire_account import Balance

ROOT = Path(__file__).parents[2]
VALUES = {
    "uid": "local-0a1b2c3d",
    "sshPublicKey": "ssh-ed25519 AAAA podfleet-local",
    "sshPrivateKey": "CANARY-PRIVATE",
    "image": "example/node:1",
    "gpuTypes": '["NVIDIA RTX A4000"]',
    "queueUrl": "http://127.0.0.1:8792",
    "maxPods": "4",
}


@dataclass
class Recorder(mocks.Mocks):
    """Every resource that the program asked for, in order."""

    seen: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    exit_code: object = 0

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.seen.append((args.typ, args.name, dict(args.inputs)))
        made = {"host": "127.0.0.1", "port": 22, "hostKey": "ssh-ed25519 HOST", "costUsdPerHr": 0.25, "key": "tskey-x"}
        return f"{args.name}-id", {**args.inputs, **made}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        return {}

    def names(self, kind: str) -> list[str]:
        return sorted(name for typ, name, _ in self.seen if typ.endswith(kind))

    def inputs(self, name: str) -> dict[str, Any]:
        return next(inputs for _, seen, inputs in self.seen if seen == name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Recorder]]:
    """Run `infra/__main__.py` with changed config values; answers what it asked for."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def call(**changes: Any) -> Recorder:
        recorder = Recorder()
        mocks.set_mocks(recorder, project="podfleet", stack="local", preview=False)
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
        values = {**VALUES, **texts}
        engine_config.set_all_config(
            {f"podfleet:{key}": value for key, value in values.items()}, ["podfleet:sshPrivateKey"]
        )

        @pulumi.runtime.test
        def program() -> None:
            try:
                runpy.run_path(str(ROOT / "infra"), run_name="__main__")
            except SystemExit as stopped:
                recorder.exit_code = stopped.code

        program()
        return recorder

    monkeypatch.setattr(notices, "read_balance", lambda _access: Balance(3.1, 0.0))
    monkeypatch.setattr(capacity.RunpodClient, "gpu_offers", lambda *_args, **_kw: ())
    monkeypatch.setattr(prices, "read", lambda *_args, **_kw: prices.Readings((), {}, "nobody was asked"))
    yield call
    loop.close()
