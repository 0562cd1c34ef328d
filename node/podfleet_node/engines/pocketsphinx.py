"""pocketsphinx: the recogniser whose model comes inside the wheel. For the demo and for tests without a GPU.

Its C code keeps the interpreter's lock for a whole segment (measured: 1.8 s for 20 s of audio); that is one reason why
engines run in a process of their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from pocketsphinx import Decoder  # type: ignore[attr-defined]

from podfleet_node.engines.base import SAMPLE_RATE
from podfleet_node.split import split
from podfleet_node.transcript import Transcript, Word, phrases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEGMENT_LO_S = 5.0
SEGMENT_HI_S = 15.0
FRAMES_PER_S = 100


class PocketsphinxEngine:
    """US English, 16 kHz, default beams: narrower ones are faster and useless."""

    model = "pocketsphinx-en-us"

    def __init__(self, _model: str) -> None:
        self._decoder: Any = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(self, pcm: Path, *, language: str, progress: Callable[[float], None]) -> Transcript:
        """Segment by segment, cut at quiet places. There is one language, whatever is asked for."""
        del language
        samples = np.fromfile(pcm, np.int16)
        words: list[Word] = []
        for start, end in split(samples, lo_s=SEGMENT_LO_S, hi_s=SEGMENT_HI_S):
            words += self._words(samples[start:end].tobytes(), offset_s=start / SAMPLE_RATE)
            progress(end / SAMPLE_RATE)
        return Transcript(phrases(words), language="en")

    def _words(self, segment: bytes, *, offset_s: float) -> Iterator[Word]:
        self._decoder.start_utt()
        self._decoder.process_raw(segment, full_utt=True)
        self._decoder.end_utt()
        if self._decoder.hyp() is None:
            return
        for piece in self._decoder.seg():
            if piece.word[0] in "<[":
                continue  # <s>, <sil>, [NOISE]
            start_s = offset_s + piece.start_frame / FRAMES_PER_S
            end_s = offset_s + (piece.end_frame + 1) / FRAMES_PER_S
            yield Word(start_s, end_s, re.sub(r"\(\d+\)", "", piece.word))
