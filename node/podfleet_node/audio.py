"""Any audio file → raw mono 16 kHz int16, by a child process that can be killed. Used by the prefetch.

ffmpeg when it is on PATH, else PyAV in a Python of its own: a corrupt file or a decoder that spins must never harm the
worker, whose heartbeats hold every job.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from typing import TYPE_CHECKING

import anyio

from podfleet_node.errors import AudioBroken, DecoderFailed

if TYPE_CHECKING:
    from pathlib import Path

DECODE_TIMEOUT_S = 900.0
BYTES_PER_S = 32000
REASON_CHARS = 300
LITTLE_SPACE_BYTES = 1 << 20
BROKEN_EXIT = 65  # the exit code of `decode_pyav` for a file that is no audio


def find_decoder(search_path: str) -> str:
    """`ffmpeg`, `pyav`, or "" when this pod has neither."""
    if shutil.which("ffmpeg", path=search_path or None):
        return "ffmpeg"
    from importlib.util import find_spec  # noqa: PLC0415 - only where there is no ffmpeg

    return "pyav" if find_spec("av") else ""


def decode_command(decoder: str, source: Path, target: Path) -> list[str]:
    """The child's command line. ffmpeg may open nothing but files: a playlist is not audio."""
    if decoder == "pyav":
        return [sys.executable, "-m", "podfleet_node", "decode", str(source), str(target)]
    head = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-protocol_whitelist", "file", "-i", str(source)]
    return [*head, "-vn", "-ac", "1", "-ar", "16000", "-f", "s16le", "-y", str(target)]


async def decode(decoder: str, source: Path, target: Path, *, timeout_s: float = DECODE_TIMEOUT_S) -> float:
    """Decode `source` into `target`; returns its seconds of audio.

    Raises AudioBroken with the decoder's own words, DecoderFailed when the decoder itself is the trouble. Cancelling
    kills the child.
    """
    try:
        with anyio.fail_after(timeout_s):
            done = await anyio.run_process(
                decode_command(decoder, source, target),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
    except TimeoutError:
        raise DecoderFailed(f"{decoder} did not finish within {timeout_s:.0f} s") from None
    except OSError as err:
        raise DecoderFailed(f"{decoder} did not start: {err.strerror}") from None
    if done.returncode != 0:
        blames_file = _blames_file(decoder, done.returncode) and not _disk_is_full(target)
        blame = AudioBroken if blames_file else DecoderFailed
        raise blame(_reason(decoder, done.returncode, done.stderr, source))
    audio_s = audio_length_s(target)
    if audio_s == 0.0:
        raise AudioBroken(f"{decoder} found no audio in it")
    return audio_s


def write_silence(path: Path, *, seconds: float, rate: int = 8000) -> None:
    """A small WAV file at another rate than the engine's, for the smoke test."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * int(seconds * rate)))


def audio_length_s(pcm: Path) -> float:
    """Seconds in a raw file; 0 when there is none."""
    return pcm.stat().st_size / BYTES_PER_S if pcm.exists() else 0.0


def _blames_file(decoder: str, returncode: int) -> bool:
    """ffmpeg's every exit code is about its input; our own child has one for it. A signal is neither."""
    return returncode == BROKEN_EXIT if decoder == "pyav" else returncode > 0


def _disk_is_full(target: Path) -> bool:
    """ffmpeg has one exit code for all; a job must not fail for good because this pod's disk is full."""
    return shutil.disk_usage(target.parent).free < LITTLE_SPACE_BYTES


def _reason(decoder: str, returncode: int, stderr: bytes, source: Path) -> str:
    """The last words of the decoder, without our paths."""
    words = " ".join(stderr.decode(errors="replace").replace(str(source), "audio").split())
    return f"{decoder}: {words[-REASON_CHARS:] or f'ended with {returncode}'}"
