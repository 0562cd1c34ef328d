"""The transcripts come from the audio: swapped audios swap the texts, and a new audio gives its own words."""

from __future__ import annotations

import json
import random
import wave
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from tests.e2e.fleet import Fleet
from tools.episodes import wer

pytestmark = [pytest.mark.engine, pytest.mark.slow]
RATE_HZ = 16_000
LIMIT_S = 240


def decode(path: Path) -> np.ndarray:
    """Mono 16 kHz int16."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        frames = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(frames)


def to_wav(samples: np.ndarray) -> bytes:
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.astype(np.int16).tobytes())
    return out.getvalue()


def quiet_middle(samples: np.ndarray) -> int:
    """The quietest fifth of a second in the middle fifth of the audio: a place between two words."""
    width = RATE_HZ // 5
    first, last = int(len(samples) * 0.4), int(len(samples) * 0.6)
    energy = [np.square(samples[at : at + width].astype(float)).sum() for at in range(first, last, width // 4)]
    return first + int(np.argmin(energy)) * (width // 4) + width // 2


def half(samples: np.ndarray, words: list[str], *, first: bool) -> tuple[np.ndarray, list[str]]:
    """One half of an episode and its words: as many as the half's share of the time."""
    at = quiet_middle(samples)
    count = round(len(words) * at / len(samples))
    return (samples[:at], words[:count]) if first else (samples[at:], words[count:])


def test_transcripts_come_from_the_audio(
    fleet: Fleet, wait_for: Callable[..., None], episodes: Path, record_property: Callable[[str, object], None]
) -> None:
    rows: list[dict[str, Any]] = json.loads((episodes / "references.json").read_text())["episodes"]
    chance = random.Random()  # noqa: S311  another cut in every run
    one, two = (next(row for row in rows if row["voice"] == voice) for voice in ("rms", "slt"))
    cut = chance.sample([row for row in rows if row["voice"] == "rms"], 2)
    halves = [
        half(decode(episodes / "audio" / row["file"]), wer.normalise(row["text"]), first=chance.random() < 0.5)
        for row in cut
    ]
    record_property("cut from", [row["title"] for row in cut])
    swapped = {
        fleet.add_job((episodes / "audio" / other["file"]).read_bytes(), row["title"], other["file"]): row
        for row, other in ((one, two), (two, one))
    }
    mixed = fleet.add_job(to_wav(np.concatenate([samples for samples, _ in halves])), "two halves")

    fleet.config(pods=2, engine="pocketsphinx")
    try:
        fleet.up()
        wait_for(
            lambda: all(job["status"] == "completed" for job in fleet.jobs()), "three transcripts", limit_s=LIMIT_S
        )
    finally:
        fleet.config(engine="scripted")
    texts = {job["job_id"]: transcript(fleet, job["episode_id"]) for job in fleet.jobs()}
    for job_id, row in swapped.items():
        assert wer.word_error_rate(wer.normalise(row["text"]), texts[job_id]) > 0.5
    for job_id, row in zip(swapped, (two, one), strict=True):
        assert wer.word_error_rate(wer.normalise(row["text"]), texts[job_id]) < 0.4
    assert wer.word_error_rate([word for _, words in halves for word in words], texts[mixed]) < 0.4


def transcript(fleet: Fleet, episode_id: int) -> list[str]:
    answer = httpx.get(f"{fleet.stage.queue_url}/api/episodes/{episode_id}/transcript", timeout=30)
    answer.raise_for_status()
    return wer.words_of_transcript(answer.text)
