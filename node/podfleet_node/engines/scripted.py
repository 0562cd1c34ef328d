"""An engine that hears nothing: it says what was sent to it, at a set speed. For tests of everything around an engine.

The setting `model` is its script: `speed=50` seconds of audio per second (default: at once), `fail=TEXT` on every job,
`crash=1` kills its process on a job, `hang=1` never returns, `smoke=TEXT` fails already in the smoke test.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from typing import TYPE_CHECKING

from podfleet_node.engines.base import BYTES_PER_S
from podfleet_node.errors import SettingsError
from podfleet_node.transcript import Transcript, Word, phrases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEP_S = 0.05
KNOBS = frozenset({"speed", "fail", "crash", "hang", "smoke"})


class ScriptedEngine:
    """Its text holds the length and the digest of the audio, so that a test can tell transcripts apart."""

    model = "scripted"

    def __init__(self, script: str) -> None:
        pairs = [part.partition("=") for part in script.split(",") if part]
        self._script = {name: value for name, _, value in pairs}
        if unknown := set(self._script) - KNOBS:
            raise SettingsError(f"model: unknown words of the scripted engine: {', '.join(sorted(unknown))}")

    def transcribe(self, pcm: Path, *, language: str, progress: Callable[[float], None]) -> Transcript:
        """One sentence for each 10 s of audio. Silence is the smoke test."""
        content = pcm.read_bytes()
        audio_s = len(content) / BYTES_PER_S
        self._misbehave(smoke=not any(content))
        self._take_time(audio_s, progress)
        digest = hashlib.sha256(content).hexdigest()[:12]
        sentences = [
            Word(at_s, min(at_s + 10.0, audio_s), f"Scripted words of audio {digest} from second {at_s}.")
            for at_s in range(0, max(1, int(audio_s)), 10)
        ]
        return Transcript(phrases(sentences), language=language or "en")

    def _misbehave(self, *, smoke: bool) -> None:
        if smoke:
            if text := self._script.get("smoke"):
                raise RuntimeError(text)
            return
        if text := self._script.get("fail"):
            raise RuntimeError(text)
        if "crash" in self._script:
            os.kill(os.getpid(), signal.SIGKILL)
        while "hang" in self._script:
            time.sleep(STEP_S)

    def _take_time(self, audio_s: float, progress: Callable[[float], None]) -> None:
        speed = float(self._script.get("speed", "inf"))
        done_s = 0.0
        while speed < float("inf") and done_s < audio_s:
            time.sleep(min(STEP_S, (audio_s - done_s) / speed))
            done_s += STEP_S * speed
            progress(min(done_s, audio_s))
        progress(audio_s)
