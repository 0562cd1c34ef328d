"""The demo's episodes: audio that goes to the queue, reference texts that stay here, word error rates per voice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tools.episodes import wer
from tools.stage import CHECKOUT, Stage

EPISODES = CHECKOUT / "tools" / "episodes"


@dataclass(frozen=True)
class Episode:
    """One episode: its audio file, who speaks, what is said."""

    title: str
    voice: str
    audio: Path
    reference: str


@dataclass
class Episodes:
    """All of them, and which id the queue gave to each."""

    all: tuple[Episode, ...]
    ids: dict[int, Episode] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Episodes:
        """The committed ones."""
        rows: list[dict[str, Any]] = json.loads((EPISODES / "references.json").read_text())["episodes"]
        return cls(
            tuple(Episode(row["title"], row["voice"], EPISODES / "audio" / row["file"], row["text"]) for row in rows)
        )

    def enqueue(self, stage: Stage) -> None:
        """Audio and title go to the server; the texts do not."""
        for episode in self.all:
            answer = httpx.post(
                f"{stage.queue_url}/api/episodes",
                params={"title": episode.title, "filename": episode.audio.name},
                content=episode.audio.read_bytes(),
                timeout=30,
                trust_env=False,
            )
            answer.raise_for_status()
            self.ids[answer.json()["episode_id"]] = episode

    def summary(self) -> str:
        voices = sorted({episode.voice for episode in self.all})
        counts = ", ".join(f"{sum(e.voice == voice for e in self.all)} by {voice}" for voice in voices)
        return f"{len(self.all)} episodes queued: {counts}"


def error_rate(reference: str, transcript: str) -> float:
    """Word error rate of a transcript as the server keeps it."""
    return wer.word_error_rate(wer.normalise(reference), wer.words_of_transcript(transcript))
