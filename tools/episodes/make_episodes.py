"""Make the demo's episodes: texts -> flite speech -> small Opus files. Needs flite; the demo never runs this.

usage: python tools/episodes/make_episodes.py [--only TEXT ...]      make the audio again from references.json
       python tools/episodes/make_episodes.py --measure [--whole] [--only ...]
                                                     recognise the committed audio, print error rates (--whole: uncut)

`references.json` is the source: title, voice and text per episode; this program writes `seconds` and where each
sentence starts and ends beside it (tests cut audio there). The sentences are spoken one by one with a pause between
them, so that a cut in a pause never splits a word. Nothing that a pod or the queue reads may hold a text: the audio
lies in `audio/`, named by number, title and voice.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))
from wer import mean_error_rate, normalise, word_error_rate

HERE = Path(__file__).parent
REFERENCES = HERE / "references.json"
AUDIO = HERE / "audio"
RATE_HZ = 16000
PAUSE_S = 0.4
BIT_RATE = 16000  # the same error rate as uncompressed, about 100 kB per episode
SEGMENT_S = (5.0, 15.0)

Samples = npt.NDArray[np.int16]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], help="parts of file names")
    options = parser.parse_args()
    document = json.loads(REFERENCES.read_text(encoding="utf-8"))
    chosen = [e for e in document["episodes"] if not options.only or any(part in e["file"] for part in options.only)]
    if options.measure:
        measure(chosen, whole=options.whole)
        return
    AUDIO.mkdir(exist_ok=True)
    for episode in chosen:
        make(episode)
        print(f"{episode['file']}: {episode['seconds']:.1f} s, {(AUDIO / episode['file']).stat().st_size} bytes")
    REFERENCES.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make(episode: dict[str, Any]) -> None:
    """Speak and encode one episode; notes its length and its sentences' times in the record."""
    pause = np.zeros(int(RATE_HZ * PAUSE_S), np.int16)
    pieces, times, at = [pause], [], len(pause)
    for sentence in sentences(episode["text"]):
        spoken = speak(sentence, episode["voice"])
        times.append([round(at / RATE_HZ, 3), round((at + len(spoken)) / RATE_HZ, 3)])
        pieces += [spoken, pause]
        at += len(spoken) + len(pause)
    encode(np.concatenate(pieces), AUDIO / episode["file"])
    episode["seconds"] = round(at / RATE_HZ, 3)
    episode["sentence_times_s"] = times


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; `sentence_times_s` follows the same order."""
    return [found.strip() for found in re.findall(r"[^.?!]+[.?!]", text)]


def speak(sentence: str, voice: str) -> Samples:
    """One sentence as flite says it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", sentence, str(path)], check=True, capture_output=True)
        with wave.open(str(path)) as speech:
            if (speech.getframerate(), speech.getnchannels(), speech.getsampwidth()) != (RATE_HZ, 1, 2):
                raise SystemExit(f"flite's voice {voice} is not mono 16 kHz 16 bit")
            return np.frombuffer(speech.readframes(speech.getnframes()), np.int16)


def encode(samples: Samples, path: Path) -> None:
    """Opus in Ogg, mono; long frames, as nobody waits for this stream. Same text and library, same bytes."""
    container_options = {"serial_offset": "1", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="ogg", options=container_options) as container:
        stream = container.add_stream(
            "libopus", rate=RATE_HZ, layout="mono", options={"application": "voip", "frame_duration": "60"}
        )
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def decode(path: Path) -> Samples:
    """Any audio file as mono 16 kHz samples."""
    pieces: list[npt.NDArray[Any]] = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        for frame in [*container.decode(audio=0), None]:
            pieces += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
    return np.concatenate(pieces).astype(np.int16)


def segments(samples: Samples, shortest_s: float, longest_s: float) -> list[Samples]:
    """Cut at the quietest third of a second within each window; covers everything."""
    step = RATE_HZ // 50
    energy = np.square(samples[: len(samples) // step * step].astype(np.float32).reshape(-1, step)).mean(axis=1)
    smooth = np.convolve(energy, np.ones(15, np.float32) / 15, "same")
    cuts = [0]
    while len(energy) - cuts[-1] > longest_s * 50:
        low, high = cuts[-1] + int(shortest_s * 50), cuts[-1] + int(longest_s * 50)
        cuts.append(low + int(np.argmin(smooth[low:high])))
    bounds = [cut * step for cut in cuts] + [len(samples)]
    return [samples[start:end] for start, end in itertools.pairwise(bounds)]


def recognise(samples: Samples, *, whole: bool = False) -> tuple[str, float]:
    """What pocketsphinx hears with its defaults, and the CPU seconds it took."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL")
    heard = []
    started_s = time.process_time()
    for part in [samples] if whole else segments(samples, *SEGMENT_S):
        decoder.start_utt()
        decoder.process_raw(part.tobytes(), full_utt=True)
        decoder.end_utt()
        heard.append(decoder.hyp().hypstr if decoder.hyp() else "")
    return " ".join(heard), time.process_time() - started_s


def measure(episodes: list[dict[str, Any]], *, whole: bool) -> None:
    """Print the error rate and speed (x real time, one core's CPU time) of each episode, and the rate per voice."""
    by_voice: dict[str, list[tuple[list[str], list[str]]]] = {}
    for episode in episodes:
        samples = decode(AUDIO / episode["file"])
        audio_s = len(samples) / RATE_HZ
        heard, cpu_s = recognise(samples, whole=whole)
        pair = (normalise(episode["text"]), normalise(heard))
        by_voice.setdefault(episode["voice"], []).append(pair)
        rate = word_error_rate(*pair)
        print(f"{episode['file']:28} {audio_s:5.1f} s  WER {rate:.3f}  {audio_s / cpu_s:4.1f}x", flush=True)
    for voice, pairs in sorted(by_voice.items()):
        print(f"{voice}: WER {mean_error_rate(pairs):.3f} over {len(pairs)} episodes")


if __name__ == "__main__":
    main()
