"""The live table: pods by phase, the queue, transcripts as they arrive, dollars; plain lines without a terminal."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tools.demo.episodes_queue import Episodes, error_rate
from tools.demo.verdict import transcript
from tools.stage import Stage, StageError

EVERY_S = 1.0
SHOWN = 8


class Watch:
    """Polls the cloud and the queue until no job is left."""

    def __init__(self, stage: Stage, episodes: Episodes, console: Console) -> None:
        self._stage = stage
        self._episodes = episodes
        self._console = console
        self._arrived: dict[int, tuple[str, str, float]] = {}

    def until_drained(self, *, limit_s: float) -> None:
        """Raises StageError when jobs fail or the queue is not empty in time."""
        end_s = time.monotonic() + limit_s
        with Live(console=self._console, refresh_per_second=4, transient=False) as live:
            while True:
                jobs = self._stage.queue("/api/queue/all?limit=10000")["jobs"]
                self._read(jobs)
                live.update(self._screen(jobs))
                states = Counter(job["status"] for job in jobs)
                if states["completed"] + states["failed"] == len(jobs):
                    break
                if time.monotonic() > end_s:
                    raise StageError(f"the queue is not empty after {limit_s:.0f} s: {dict(states)}")
                time.sleep(EVERY_S)

    def _read(self, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            if job["status"] == "completed" and job["job_id"] not in self._arrived:
                episode = self._episodes.ids[job["episode_id"]]
                rate = error_rate(episode.reference, transcript(self._stage, job["episode_id"]))
                by = str(job["completed_by"]).rsplit("-", 1)[0]
                self._arrived[job["job_id"]] = (f"{episode.title} ({episode.voice})", by, rate)
                if not self._console.is_terminal:
                    self._console.print(
                        f"  {len(self._arrived):>2} {episode.title} ({episode.voice}) by {by}: WER {100 * rate:.1f} %"
                    )

    def _screen(self, jobs: list[dict[str, Any]]) -> Group:
        if not self._console.is_terminal:
            return Group()
        return Group(self._pods(jobs), self._transcripts(), self._line(jobs))

    def _pods(self, jobs: list[dict[str, Any]]) -> Table:
        table = Table("pod", "cloud", "node", "done", "now", box=None, title="pods", title_justify="left")
        nodes = {node["name"]: node["status"] for node in self._stage.queue("/api/nodes")["nodes"]}
        done = Counter(job["completed_by"] for job in jobs)
        now = {job["owner_name"]: job["episode_title"] for job in jobs if job["status"] == "running"}
        for pod in sorted(self._stage.pods(), key=lambda pod: pod["name"]):
            name = pod["name"]
            table.add_row(name, pod["status"], nodes.get(name, "booting"), str(done[name]), now.get(name, ""))
        return table

    def _transcripts(self) -> Table:
        table = Table("episode", "by", "WER", box=None, title="transcripts", title_justify="left")
        for title, by, rate in list(self._arrived.values())[-SHOWN:]:
            table.add_row(title, by, f"{100 * rate:.1f} %")
        return table

    def _line(self, jobs: list[dict[str, Any]]) -> Text:
        states = Counter(job["status"] for job in jobs)
        try:
            spent = f"${self._stage.cloud('/_emu/ledger')['total_usd']:.4f}"
        except httpx.HTTPError:
            spent = "$?"
        counts = f"{states['queued']} waiting, {states['running']} running, {states['completed']} done"
        return Text(f"queue: {counts} · {spent} spent", style="bold")
