"""Our own dynamic providers, called as the engine's launcher calls them: the shells of `infra`, over one runtime.

`Providers` does one call; `LocalPort` has them in this process (tests), `serve` in a process of their own (`driver`).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from tools.chaos.engine import Answer, Ask, StepFailed

from podfleet.errors import PodfleetError
from podfleet.providers.runpod.guard import GuardProvider
from podfleet.providers.runpod.holdings import HoldingsProvider
from podfleet.providers.runpod.pod import PodProvider
from podfleet.providers.runpod.registry import RegistryProvider
from podfleet.providers.runpod.runtime import Runtime
from podfleet.providers.runpod.secret import SecretProvider
from podfleet.providers.runpod.settings import ProviderSettings
from podfleet.providers.runpod.shell import Shell
from podfleet.providers.runpod.sweep import SweepProvider
from podfleet.providers.runpod.volume import VolumeProvider

KINDS: dict[str, type[Shell]] = {
    "holdings": HoldingsProvider,
    "secret": SecretProvider,
    "registry": RegistryProvider,
    "volume": VolumeProvider,
    "guard": GuardProvider,
    "pod": PodProvider,
    "sweep": SweepProvider,
}


class Providers:
    """The shells, bound to one runtime instead of the one of the process."""

    def __init__(self, runtime: Runtime, settings: ProviderSettings) -> None:
        self._shells = {kind: _bound(shell, runtime, settings) for kind, shell in KINDS.items()}

    def call(self, ask: Ask) -> Answer:
        """One verb of one provider; StepFailed with the line that a person would see."""
        shell = self._shells[ask.kind]
        try:
            return getattr(self, f"_{ask.verb}")(shell, ask)  # type: ignore[no-any-return]
        except PodfleetError as error:
            raise StepFailed(f"{type(error).__name__}: {error}") from error

    @staticmethod
    def _check(shell: Shell, ask: Ask) -> Answer:
        result = shell.check(ask.olds, ask.news)
        if result.failures:
            raise StepFailed("; ".join(f"{each.property} {each.reason}" for each in result.failures))
        return Answer()

    @staticmethod
    def _diff(shell: Shell, ask: Ask) -> Answer:
        result = shell.diff(ask.id, ask.olds, ask.news)
        if result.replaces and not result.delete_before_replace:
            raise StepFailed("a replacement that is made before the old one goes is not modelled here")
        return Answer(changes=bool(result.changes), replace=bool(result.replaces))

    @staticmethod
    def _create(shell: Shell, ask: Ask) -> Answer:
        made = shell.create(ask.news)
        return Answer(str(made.id), dict(made.outs or {}))

    @staticmethod
    def _read(shell: Shell, ask: Ask) -> Answer:
        found = shell.read(ask.id, ask.olds)
        return Answer(str(found.id or ""), dict(found.outs or {}))

    @staticmethod
    def _update(shell: Shell, ask: Ask) -> Answer:
        return Answer(ask.id, dict(shell.update(ask.id, ask.olds, ask.news).outs or {}))

    @staticmethod
    def _delete(shell: Shell, ask: Ask) -> Answer:
        shell.delete(ask.id, ask.olds)
        return Answer()


def _bound(shell: type[Shell], runtime: Runtime, settings: ProviderSettings) -> Shell:
    bound: Shell = type(shell.__name__, (shell,), {"core": property(lambda _self: runtime)})()
    bound._settings = settings
    return bound


class LocalPort:
    """Providers in this process; the calling thread does the work."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers

    def ask(self, ask: Ask) -> Answer:
        return self._providers.call(ask)


# In a process of their own: a JSON line each way over a socket


def serve(wire: socket.socket, providers: Providers, workers: int) -> None:
    """Work off the engine's calls with so many threads; ends when its engine is gone and all of it is done."""
    sending = threading.Lock()

    def work(number: int, ask: Ask) -> None:
        try:
            answer: dict[str, Any] = {"number": number, "answer": asdict(providers.call(ask))}
        except StepFailed as error:
            answer = {"number": number, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - as the launcher: an unexpected error is the call's, too
            answer = {"number": number, "error": f"unexpected {type(error).__name__}: {error}"}
        try:
            with sending:
                wire.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            sys.stderr.write(f"provider: nobody hears the end of call {number} ({ask.verb} {ask.kind})\n")

    with ThreadPoolExecutor(workers) as threads, wire.makefile("rb") as lines:
        for line in lines:
            call = json.loads(line)
            threads.submit(work, call["number"], Ask(**call["ask"]))


class RemotePort:
    """The engine's end of that socket."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._open: dict[int, Future[Answer]] = {}
        self._count = 0
        self._closed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, ask: Ask) -> Answer:
        answer: Future[Answer] = Future()
        with self._lock:
            if self._closed:
                raise StepFailed("the provider process is gone")
            self._count += 1
            self._open[self._count] = answer
            line = json.dumps({"number": self._count, "ask": asdict(ask)}).encode() + b"\n"
            try:
                self._wire.sendall(line)
            except OSError:
                raise StepFailed("the provider process is gone") from None
        return answer.result()

    def _listen(self) -> None:
        try:
            with self._wire.makefile("rb") as lines:
                for line in lines:
                    self._settle(json.loads(line))
        except (OSError, ValueError):  # killed in the middle of a line
            pass
        with self._lock:
            self._closed = True
            for waiting in self._open.values():
                waiting.set_exception(StepFailed("the provider process has died"))
            self._open.clear()

    def _settle(self, reply: dict[str, Any]) -> None:
        with self._lock:
            waiting = self._open.pop(reply["number"])
        if "error" in reply:
            waiting.set_exception(StepFailed(reply["error"]))
        else:
            waiting.set_result(Answer(**reply["answer"]))
