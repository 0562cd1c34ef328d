"""The real engine on real speech: a node hears what was said, and goes on beating while its engine is busy."""

import json
from pathlib import Path

import pytest
from node_pods import add, nodes, pod, statuses, transcript, until
from tools.episodes.wer import normalise, word_error_rate, words_of_transcript

from podfleet_queue.testing import running

EPISODES = Path(__file__).parents[3] / "tools" / "episodes"


@pytest.mark.slow
def test_pocketsphinx_hears_the_episodes_and_the_node_stays_online(tmp_path: Path) -> None:
    rows = json.loads((EPISODES / "references.json").read_text(encoding="utf-8"))["episodes"]
    spoken = [next(row for row in rows if row["voice"] == voice) for voice in ("rms", "slt")]
    with running(tmp_path / "queue", offline_s=4) as queue:
        for row in spoken:
            add(queue.url, (EPISODES / "audio" / row["file"]).read_bytes(), name=row["file"])
        with pod(tmp_path / "pod", queue.url, engine="pocketsphinx") as node:
            node.wait_for("podfleet-node ready ")
            seen_offline = []

            def done() -> bool:
                seen_offline.extend(row for row in nodes(queue.url) if row["status"] == "offline")
                return statuses(queue.url) == ["completed"] * 2

            until(done, what="both transcripts", timeout_s=240)
            assert not seen_offline
            for episode_id, (row, limit) in enumerate(zip(spoken, (0.10, 0.25), strict=True), start=1):
                heard = words_of_transcript(transcript(queue.url, episode_id))
                assert word_error_rate(normalise(row["text"]), heard) < limit, row["file"]
            assert node.status()["worker"]["failures_in_a_row"] == 0
