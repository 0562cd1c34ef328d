"""The second half of `make bench`: many pods, under RunPod's usual limit of 60 calls a minute and without one.

Each pod is a `sleep`, without bootstrap steps, so that a hundred of them fit on a laptop: what is measured is how fast
engine, launcher and provider rent, prove and end. Both launchers, the same stand-in cloud, the stack's default
intervals (lists at most every second, an end proven by two lists ten seconds apart). A create is answered after two
seconds, as a cloud's would be.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tools.stage import Stage, free_ports

MANY, HALF = 100, 50
LIMIT = 60
LAUNCHERS = ("own", "stock")
NO_LIMIT = 1_000_000
BOOT_S, CREATE_S = 1.5, 2.0
SETTINGS = {
    "engine": "scripted",
    "bootstrap": "none",
    "gpuTypes": ["NVIDIA RTX A4000"],
    "maxPods": 2 * MANY,
    "maxUsdPerHour": 0,
    "maxUsdPerDay": 0,
    "absenceIntervalSeconds": 10,
    "pollIntervalSeconds": 10,
    "drainDeadlineSeconds": 0,
    "stopOnEmptyQueue": False,
}


@dataclass(frozen=True)
class Row:
    """One step: how long the engine took, and which calls it cost."""

    limit: int | None
    launcher: str
    step: str
    pods: int
    took_s: float
    calls: Counter[str]
    refused: int

    @property
    def all_calls(self) -> int:
        return sum(self.calls.values())

    @property
    def aim_s(self) -> float:
        """The longer of a boot and the calls at the limit's pace, and ten seconds."""
        return max(CREATE_S + BOOT_S, 60 * self.all_calls / self.limit if self.limit else 0) + 10


def measure(show: Callable[[str], None], *, limits: tuple[int | None, ...]) -> list[Row]:
    """All steps with both launchers under each limit; one line of progress for each."""
    rows = []
    for limit in limits:
        for launcher in LAUNCHERS:
            with _stage(limit) as stage:
                for before, after in ((0, HALF), (HALF, 0), (0, MANY), (MANY, 0)):
                    row = _step(stage, limit, launcher, before, after)
                    show(f"{row.step} pods, {launcher} launcher, limit {limit or 'none'}: {row.took_s:.1f} s")
                    rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    titles = (
        "calls a minute",
        "pods",
        "launcher",
        "time",
        "÷ stock",
        "max(boot, calls ÷ limit) + 10 s",
        "calls per pod",
        "of these POST, DELETE, lists, other",
        "refused (429)",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    stock = {(row.limit, row.step): row.took_s for row in rows if row.launcher == "stock"}
    for row in rows:
        kinds = Counter(row.calls)
        posts, ends, lists = (kinds.pop(op, 0) for op in ("pods.create", "pods.delete", "pods.list"))
        shares = ", ".join(f"{number / row.pods:.2f}" for number in (posts, ends, lists, sum(kinds.values())))
        ratio = row.took_s / stock[row.limit, row.step]
        lines.append(
            f"| {row.limit or 'no limit'} | {row.step} | {row.launcher} | {row.took_s:.1f} s | {ratio:.2f} "
            f"| {row.aim_s:.0f} s | {row.all_calls / row.pods:.2f} | {shares} | {row.refused} |"
        )
    return "\n".join(lines)


@contextmanager
def _stage(limit: int | None) -> Iterator[Stage]:
    """A cloud with room and money for all, and pods that only sleep."""
    folder = Path(tempfile.mkdtemp(prefix="podfleet-bench-"))
    facts = {
        "pod_command": ["sh", "-c", "exec sleep 100000"],
        "stock_default": 4 * MANY,
        "balance_usd": 100_000,
        "boot_s": BOOT_S,
        "rate_limit_per_minute": limit or NO_LIMIT,
        "rate_limit_per_hour": NO_LIMIT,
        "rate_limit_per_day": NO_LIMIT,
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    stage = Stage(folder, free_ports(), SETTINGS)
    try:
        stage.lay()
        stage.start_cloud("--facts", str(folder / "facts.json"))
        slow = {"op": "pods.create", "phase": "before", "action": "delay", "delay_s": CREATE_S, "times": 0}
        stage.cloud("/_emu/faults", "POST", json=slow)
        yield stage
    finally:
        stage.stop_cloud()
        shutil.rmtree(folder, ignore_errors=True)


def _step(stage: Stage, limit: int | None, launcher: str, before: int, after: int) -> Row:
    done = stage.pulumi("config", "set", "podfleet:pods", str(after))
    if done.returncode:
        raise SystemExit(done.stdout)
    if limit:
        _wait_for_a_new_minute(stage)
    since = stage.cloud("/_emu/events")["events"][-1]["seq"]
    started_s = time.monotonic()
    done = stage.pulumi("up", "--yes", "--skip-preview", env={"PODFLEET_LAUNCHER": launcher})
    took_s = time.monotonic() - started_s
    live = [pod for pod in stage.cloud("/_emu/pods")["pods"] if pod["status"] != "TERMINATED"]
    if done.returncode or len(live) != after:
        raise SystemExit(f"{before} → {after} pods: exit {done.returncode}, {len(live)} pods\n{done.stdout}")
    events = [event for event in stage.cloud(f"/_emu/events?since={since}")["events"] if event["kind"] == "request"]
    calls = Counter(str(event["op"]) for event in events)
    refused = sum(event["status"] == httpx.codes.TOO_MANY_REQUESTS for event in events)
    return Row(limit, launcher, f"{before} → {after}", max(before, after), took_s, calls, refused)


def _wait_for_a_new_minute(stage: Stage) -> None:
    """Each step has the whole of its limit."""
    key = {"Authorization": f"Bearer {stage.env['RUNPOD_API_KEY']}"}
    answer = httpx.get(f"{stage.cloud_url}/v2/catalog/gpus", headers=key, timeout=30, trust_env=False)
    left = re.search(r'"minute";r=\d+;t=(\d+)', answer.headers["RateLimit"])
    time.sleep(float(left[1]) + 1 if left else 61)
