"""Prometheus metrics of one node, in a registry of their own. Used by the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

if TYPE_CHECKING:
    from podfleet_node.holdings import Holdings


class Metrics:
    """Few, and named after what they count."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        jobs = Counter("podfleet_node_jobs", "Jobs that left this node", ["outcome"], registry=self._registry)
        self._jobs = {outcome: jobs.labels(outcome) for outcome in ("completed", "failed", "lost", "released")}
        self._audio = Counter("podfleet_node_audio_seconds", "Audio transcribed", registry=self._registry)
        self._engine = Counter("podfleet_node_engine_seconds", "Time in the engine", registry=self._registry)
        self._speed = Gauge("podfleet_node_engine_speed", "Audio seconds per second", registry=self._registry)
        self._held = Gauge("podfleet_node_held_jobs", "Jobs in our hands", registry=self._registry)
        self._failures = Gauge("podfleet_node_failures_in_a_row", "Failures in a row", registry=self._registry)

    def serve(self, host: str, port: int) -> int:
        """Listen (0: any free port) and return the port. Raises OSError when it is taken."""
        server, _thread = start_http_server(port, host, registry=self._registry)
        return int(server.server_port)

    def left(self, outcome: str) -> None:
        """A job is out of our hands."""
        self._jobs[outcome].inc()

    def transcribed(self, *, audio_s: float, took_s: float, speed: float) -> None:
        """The engine finished one."""
        self._audio.inc(audio_s)
        self._engine.inc(took_s)
        self._speed.set(speed)

    def watch(self, holdings: Holdings) -> None:
        """Read the number of held jobs from where it stands."""
        self._held.set_function(lambda: len(holdings))

    def failures(self, in_a_row: int) -> None:
        """So many jobs failed without a success between them."""
        self._failures.set(in_a_row)
