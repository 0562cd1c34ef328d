"""`make demo` is no theatre: its last line is recomputed from the services' own records; its pods are looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tools.stage import CHECKOUT

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]
LAST_LINE = re.compile(
    r"podfleet demo: (?P<done>\d+)/(?P<all>\d+) transcripts · WER rms (?P<rms>[\d.]+) % slt (?P<slt>[\d.]+) % · "
    r"(?P<workers>\d+) pods worked · \$(?P<usd>[\d.]+) · (?P<left>0 pods, 0 keys, 0 nodes left) · 0 jobs lost"
)


@dataclass
class Run:
    """What the demo printed and recorded, and what its pods' processes looked like while it ran."""

    rc: int
    output: str
    folder: Path
    processes: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    @property
    def last_line(self) -> str:
        return self.output.strip().splitlines()[-1]

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "logs" / "report.json").read_text()))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "cloud" / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the demo, with a look at every pod's processes each half second."""
    folder = tmp_path_factory.mktemp("demo")
    log = folder / "output.log"
    command = [sys.executable, "-m", "tools.demo", "--folder", str(folder / "run"), "--keep"]
    found: dict[int, tuple[bytes, bytes]] = {}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            found |= pod_processes(folder / "run" / "cloud")
            time.sleep(0.5)
    return Run(process.returncode, log.read_text(), folder / "run", found)


def pod_processes(cloud: Path) -> dict[int, tuple[bytes, bytes]]:
    """Environment and arguments of every process whose working directory is in a pod's root."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(cloud / "pods"):
                    found[int(entry.name)] = ((entry / "environ").read_bytes(), (entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found


def test_it_ends_well_and_says_so(run: Run) -> None:
    assert run.rc == 0, run.output[-3000:]
    said = LAST_LINE.fullmatch(run.last_line)
    assert said, run.last_line
    assert said["done"] == said["all"] == "16"
    assert said["workers"] == "4"
    assert float(said["rms"]) < 8
    assert float(said["slt"]) < 20


def test_the_plan_showed_its_price_before_anything_was_rented(run: Run) -> None:
    assert "price: $0.00/h now → $0.50/h then" in run.output.split("pulumi up")[0]


def test_each_of_the_four_pods_completed_an_episode(run: Run) -> None:
    workers = {job["completed_by"] for job in run.report["jobs"]}
    assert {name.rsplit("-", 1)[0] for name in workers} == {f"podfleet-local-slot-0{number}" for number in range(1, 5)}


def test_the_dollars_are_price_times_time_of_the_pods_own_events(run: Run) -> None:
    created = {event["pod_id"]: event for event in run.events if event["kind"] == "pod.created"}
    ended = {event["pod_id"]: event for event in run.events if event["kind"] == "pod.ended"}
    assert created.keys() == ended.keys()
    usd = sum(
        created[pod]["price_usd_per_hr"] * (ended[pod]["ended_at"] - created[pod]["created_at"]) / 3600
        for pod in created
    )
    said = LAST_LINE.fullmatch(run.last_line)
    assert said
    assert float(said["usd"]) == pytest.approx(usd, abs=0.00006)


def test_pods_are_processes_that_were_told_no_reference_text(run: Run) -> None:
    rows = json.loads((CHECKOUT / "tools" / "episodes" / "references.json").read_text())["episodes"]
    assert len(run.processes) >= 8, "four pods, each with its supervisor and its worker"
    for environ, command in run.processes.values():
        told = environ + command
        assert b"references" not in told
        assert not any(row["text"][:40].encode() in told for row in rows)


def test_nothing_of_it_is_running_afterwards(run: Run) -> None:
    assert pod_processes(run.folder / "cloud") == {}
    url = re.search(r"cloud (http://\S+)", run.output)
    assert url
    with pytest.raises(httpx.TransportError):
        httpx.get(url[1], timeout=2)
