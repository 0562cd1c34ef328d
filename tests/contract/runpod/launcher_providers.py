"""Providers for the tests of the launcher: what each does shows in a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pulumi.dynamic import CheckResult, ConfigureRequest, CreateResult, DiffResult, ReadResult, ResourceProvider

from podfleet.errors import NoCapacity
from podfleet.providers.runpod.clock import RealClock
from podfleet.providers.runpod.stopping import STOPPING


class Patient(ResourceProvider):
    """A create notes that it has begun, waits for a file `go`, and notes that it has ended."""

    _folder: Path

    def configure(self, req: ConfigureRequest) -> None:
        self._folder = Path(req.config.require("folder"))

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        return CheckResult(news, [])

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=olds.get("name") != news.get("name"))

    def create(self, props: dict[str, Any]) -> CreateResult:
        name = props["name"]
        if name == "refused":
            raise NoCapacity("nothing is free")
        if name == "broken":
            raise ZeroDivisionError("a mistake")
        (self._folder / f"begun-{name}").touch()
        if name.startswith("finishing"):
            with STOPPING.finishing():
                self._wait(RealClock())
        else:
            self._wait(RealClock())
        (self._folder / f"ended-{name}").touch()
        return CreateResult(f"id-{name}", {**props, "made": True})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        return ReadResult("", {}) if id_ == "gone" else ReadResult(id_, {**props, "seen": True}, {"name": "as it is"})

    def _wait(self, clock: RealClock) -> None:
        end_s = time.monotonic() + 30
        while not (self._folder / "go").exists() and time.monotonic() < end_s:
            clock.sleep(0.02)
