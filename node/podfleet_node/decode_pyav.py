"""The child that decodes where there is no ffmpeg: `podfleet-node decode SOURCE TARGET`, started by `audio`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import av
from av.audio.resampler import AudioResampler

from podfleet_node.audio import BROKEN_EXIT
from podfleet_node.engines.base import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES_PER_SAMPLE = 2


def decode(source: Path, target: Path) -> int:
    """Write raw mono 16 kHz int16; BROKEN_EXIT and a line on stderr when the file is no audio."""
    try:
        with av.open(str(source)) as container, target.open("wb") as out:
            if not container.streams.audio:
                return _complain("no audio stream")
            resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in _frames(container):
                _write(out, resampler.resample(frame))
            _write(out, resampler.resample(None))
    except (av.FFmpegError, ValueError) as err:
        return _complain(f"{type(err).__name__}: {err}")
    return 0


def _frames(container: Any) -> Iterator[Any]:
    """All that can be decoded: like ffmpeg, one bad packet does not spoil an hour."""
    for packet in container.demux(audio=0):
        try:
            yield from packet.decode()
        except av.InvalidDataError as err:
            sys.stderr.write(f"{err}\n")


def _write(out: Any, frames: list[Any]) -> None:
    """A plane may be longer than its samples: padding."""
    for frame in frames:
        out.write(bytes(frame.planes[0])[: frame.samples * BYTES_PER_SAMPLE])


def _complain(text: str) -> int:
    sys.stderr.write(text + "\n")
    return BROKEN_EXIT
