"""The last line: what was done, what it cost, what is left. Everything is counted from the services' own lists."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import httpx
from tools.demo.episodes_queue import Episodes
from tools.episodes import wer
from tools.stage import Stage


@dataclass(frozen=True)
class Verdict:
    """Good only when every transcript is there and nothing else is."""

    good: bool
    line: str

    def __str__(self) -> str:
        return self.line


def verdict(stage: Stage, episodes: Episodes) -> Verdict:
    """Count, after `destroy`."""
    jobs: list[dict[str, Any]] = stage.queue("/api/queue/all?limit=10000")["jobs"]
    done = [job for job in jobs if job["status"] == "completed"]
    rates = word_error_rates(stage, episodes, done)
    report = {"jobs": jobs, "ledger": stage.cloud("/_emu/ledger"), "word_error_rates": rates}
    (stage.logs / "report.json").write_text(json.dumps(report, indent=1))
    workers = {job["completed_by"] for job in done}
    ledger = report["ledger"]
    rented = len(ledger["pods"])
    pods, keys, nodes = counts(stage)
    lost = len(episodes.all) - len(done)
    words = " ".join(f"{voice} {100 * rate:.1f} %" for voice, rate in sorted(rates.items()))
    line = (
        f"podfleet demo: {len(done)}/{len(episodes.all)} transcripts · WER {words} · {len(workers)} pods worked · "
        f"${ledger['total_usd']:.4f} · {pods} pods, {keys} keys, {nodes} nodes left · {lost} jobs lost"
    )
    good = not (lost or pods or keys or nodes) and len(workers) == rented
    return Verdict(good, line)


def word_error_rates(stage: Stage, episodes: Episodes, jobs: list[dict[str, Any]]) -> dict[str, float]:
    """Word error rate per voice, all words together, of the transcripts that the server has."""
    pairs: dict[str, list[tuple[list[str], list[str]]]] = defaultdict(list)
    for job in jobs:
        episode = episodes.ids[job["episode_id"]]
        heard = wer.words_of_transcript(transcript(stage, job["episode_id"]))
        pairs[episode.voice].append((wer.normalise(episode.reference), heard))
    return {voice: wer.mean_error_rate(found) for voice, found in pairs.items()}


def transcript(stage: Stage, episode_id: int) -> str:
    answer = httpx.get(f"{stage.queue_url}/api/episodes/{episode_id}/transcript", timeout=30, trust_env=False)
    answer.raise_for_status()
    return answer.text


def counts(stage: Stage) -> tuple[int, int, int]:
    """Pods, tailnet keys and account secrets, registered nodes: by the lists of those who keep them."""
    secrets = stage.cloud("/v2/account/secrets")["secrets"]
    return len(stage.pods()), len(stage.tailnet_keys()) + len(secrets), len(stage.queue("/api/nodes")["nodes"])


def leftovers(stage: Stage) -> str:
    """The same counts as a phrase, after an interruption."""
    try:
        pods, keys, nodes = counts(stage)
        jobs = stage.queue("/api/queue/all?limit=10000")["jobs"]
    except httpx.HTTPError as error:
        return f"the services do not answer any more ({error or type(error).__name__})"
    waiting = sum(job["status"] != "completed" for job in jobs)
    failed = sum(job["status"] == "failed" for job in jobs)
    return f"{pods} pods, {keys} keys, {nodes} nodes left · {waiting} jobs not done, {failed} jobs lost"
