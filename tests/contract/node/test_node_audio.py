"""Decoding by real decoders in real children: what people upload, and what is no audio."""

import io
import time
from pathlib import Path
from typing import Any

import anyio
import av
import numpy as np
import pytest

from podfleet_node.audio import decode, find_decoder, write_silence
from podfleet_node.errors import AudioBroken, DecoderFailed

pytestmark = pytest.mark.anyio
DECODERS = [name for name in ("ffmpeg", "pyav") if name == "pyav" or find_decoder("") == "ffmpeg"]
AUDIO_S = 3.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _encoded(codec: str, container: str, *, rate: int, layout: str) -> bytes:
    """A tone of 440 Hz."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        channels = 2 if layout == "stereo" else 1
        tone = (8000 * np.sin(np.arange(int(rate * AUDIO_S)) * 2 * np.pi * 440 / rate)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None, :], format="s16", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return made.getvalue()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("codec", "container", "rate", "layout"),
    [
        ("pcm_s16le", "wav", 8000, "mono"),
        ("libmp3lame", "mp3", 44100, "stereo"),
        ("aac", "mp4", 44100, "stereo"),
        ("libopus", "ogg", 48000, "mono"),
        ("flac", "flac", 22050, "stereo"),
    ],
)
async def test_every_usual_format_becomes_16_khz_mono(
    tmp_path: Path, decoder: str, codec: str, container: str, rate: int, layout: str
) -> None:
    (tmp_path / "in").write_bytes(_encoded(codec, container, rate=rate, layout=layout))
    audio_s = await decode(decoder, tmp_path / "in", tmp_path / "out")
    assert audio_s == pytest.approx(AUDIO_S, abs=0.15)
    pcm = np.fromfile(tmp_path / "out", np.int16).astype(float)
    loudest_hz = int(np.argmax(np.abs(np.fft.rfft(pcm)))) / audio_s
    assert loudest_hz == pytest.approx(440, abs=5)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("content", [b"", b"no audio", b"\xff\xfb" * 3000, b"#EXTM3U\n/etc/passwd\n"])
async def test_what_is_no_audio_is_broken_for_good(tmp_path: Path, decoder: str, content: bytes) -> None:
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(AudioBroken) as caught:
        await decode(decoder, tmp_path / "in", tmp_path / "out")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("decoder", DECODERS)
async def test_a_truncated_file_gives_what_is_left_of_it(tmp_path: Path, decoder: str) -> None:
    whole = _encoded("libmp3lame", "mp3", rate=44100, layout="stereo")
    (tmp_path / "in").write_bytes(whole[: len(whole) // 2])
    assert 0.5 < await decode(decoder, tmp_path / "in", tmp_path / "out") < 2.0


async def test_a_decoder_that_is_not_there_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DecoderFailed, match="did not start"):
        await decode("ffmpeg", tmp_path / "in", tmp_path / "out")


def _lives(pid_file: Path) -> bool:
    return Path(f"/proc/{pid_file.read_text().strip()}").exists()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_decoder_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: bool) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    began_s = time.monotonic()
    if cancelled:
        with anyio.move_on_after(1.0):
            await decode("ffmpeg", tmp_path / "in", tmp_path / "out")
    else:
        with pytest.raises(DecoderFailed, match="did not finish"):
            await decode("ffmpeg", tmp_path / "in", tmp_path / "out", timeout_s=1.0)
    assert time.monotonic() - began_s < 10
    assert not _lives(tmp_path / "pid")


async def test_the_silence_of_the_smoke_test_is_audio(tmp_path: Path) -> None:
    write_silence(tmp_path / "deep/in.wav", seconds=1.0)
    assert await decode("pyav", tmp_path / "deep/in.wav", tmp_path / "out") == pytest.approx(1.0, abs=0.02)
