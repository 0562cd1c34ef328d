"""Cut long audio at quiet places. PURE, numpy. Used by engines."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16000
FRAME = 320  # samples in 20 ms
FRAMES_PER_S = SAMPLE_RATE / FRAME
BLOCK_FRAMES = 15000


def split(pcm: NDArray[np.int16], *, lo_s: float, hi_s: float, quiet_s: float = 0.5) -> list[tuple[int, int]]:
    """Sample ranges of `lo_s` to `hi_s`, each cut in the middle of the quietest `quiet_s` of that window.

    They cover the whole input without gap or overlap; only the last may be shorter than `lo_s`.
    """
    if len(pcm) == 0:
        return []
    frames = len(pcm) // FRAME
    cuts = [0]
    if frames:
        loudness = _smooth(_energy(pcm), max(1, min(frames, int(quiet_s * FRAMES_PER_S))))
        while frames - cuts[-1] > hi_s * FRAMES_PER_S:
            first, last = cuts[-1] + int(lo_s * FRAMES_PER_S), cuts[-1] + int(hi_s * FRAMES_PER_S)
            cuts.append(first + int(np.argmin(loudness[first:last])))
    return list(pairwise([cut * FRAME for cut in cuts] + [len(pcm)]))


def _energy(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Mean square per frame, in blocks so that a long file never needs a full float copy."""
    frames = len(pcm) // FRAME
    out = np.empty(frames, np.float32)
    for i in range(0, frames, BLOCK_FRAMES):
        block = pcm[i * FRAME : min(frames, i + BLOCK_FRAMES) * FRAME].astype(np.float32).reshape(-1, FRAME)
        out[i : i + len(block)] = np.einsum("ij,ij->i", block, block) / FRAME
    return out


def _smooth(energy: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.convolve(energy, np.full(width, 1 / width, np.float32), "same")
