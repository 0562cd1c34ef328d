"""Splitter, lines, link, files: small pure things."""

import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet_node import audio
from podfleet_node.audio import decode_command
from podfleet_node.engines import ENGINES, load
from podfleet_node.errors import AudioBroken, DecoderFailed, NodeError, SettingsError
from podfleet_node.files import read_json, write_json
from podfleet_node.lines import Phase, host_key_line, phase_line, ready_line
from podfleet_node.link import Lines, encode
from podfleet_node.split import SAMPLE_RATE, split


@given(st.integers(0, 80 * SAMPLE_RATE), st.integers(0, 9))
def test_a_split_covers_everything_once(samples: int, seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-3000, 3000, samples, np.int16)
    parts = split(pcm, lo_s=5, hi_s=15)
    assert [start for start, _ in parts] == ([0] + [end for _, end in parts[:-1]] if samples else [])
    assert not samples or parts[-1][1] == samples
    assert all(end - start <= 15 * SAMPLE_RATE + 320 for start, end in parts)
    assert all(end - start >= 5 * SAMPLE_RATE for start, end in parts[:-1])


def test_a_split_falls_into_the_pause() -> None:
    pcm = np.full(20 * SAMPLE_RATE, 2000, np.int16)
    pcm[9 * SAMPLE_RATE : 10 * SAMPLE_RATE] = 0
    cut_s = split(pcm, lo_s=5, hi_s=15)[0][1] / SAMPLE_RATE
    assert 9.2 <= cut_s <= 9.8


def test_lines_of_a_pods_log() -> None:
    assert host_key_line("ssh-ed25519 AAAA root@builder\n") == "podfleet-node host-key ssh-ed25519 AAAA"
    assert phase_line(Phase.FAILED, "smoke\ntest:  x ") == "podfleet-node phase failed smoke test: x"
    assert phase_line(Phase.READY) == "podfleet-node phase ready"
    assert ready_line(node_id="n", metrics="h:1", engine="e") == "podfleet-node ready node=n metrics=h:1 engine=e"


@given(st.lists(st.dictionaries(st.text(), st.integers())), st.integers(1, 7))
def test_messages_survive_any_cutting(messages: list[dict[str, int]], step: int) -> None:
    lines, stream = Lines(), b"".join(encode(message) for message in messages)
    got = [m for i in range(0, len(stream), step) for m in lines.feed(stream[i : i + step])]
    assert got == messages


def test_torn_lines_are_dropped() -> None:
    assert Lines().feed(b'{"a": 1\n[2]\n{"b": 2}\n') == [{"b": 2}]


def test_files_are_private_and_torn_ones_are_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    path.write_text('{"a": ')
    assert read_json(path) is None
    assert read_json(tmp_path / "absent") is None


def test_an_unknown_engine_is_named_with_those_that_exist() -> None:
    with pytest.raises(SettingsError, match="unknown engine 'parakeet'; this pod has pocketsphinx, scripted"):
        load("parakeet", "")
    assert set(ENGINES) == {"pocketsphinx", "scripted"}


def test_ffmpeg_opens_nothing_but_files(tmp_path: Path) -> None:
    command = decode_command("ffmpeg", tmp_path / "in", tmp_path / "out")
    assert command[command.index("-protocol_whitelist") + 1] == "file"
    assert AudioBroken("x").reason() == "AudioBroken: x"


@pytest.mark.anyio
@pytest.mark.parametrize(("free_bytes", "blamed"), [(1 << 30, AudioBroken), (4096, DecoderFailed)])
async def test_a_full_disk_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, blamed: type[NodeError]
) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    usage = SimpleNamespace(free=free_bytes)
    monkeypatch.setattr(audio.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(blamed):
        await audio.decode("ffmpeg", tmp_path / "in", tmp_path / "out")
