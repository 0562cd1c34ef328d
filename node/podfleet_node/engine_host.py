"""The worker's handle on the engine's process: start, smoke test, one transcription at a time, kill."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from anyio.streams.buffered import BufferedByteReceiveStream

from podfleet_node.errors import AudioBroken, EngineFailed, SmokeTestFailed
from podfleet_node.transcript import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyio.abc import Process

    from podfleet_node.clock import Clock

LOAD_TIMEOUT_S = 600.0
SMOKE_TIMEOUT_S = 120.0
SMOKE_AUDIO_S = 1.0
KILL_S = 5.0
SILENCE_TIMEOUT_S = 300.0  # between two signs of life during one transcription
LONGEST_LINE = 64 << 20

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class EngineHost:
    """At most one engine process; a new one is started when the last one died."""

    def __init__(self, name: str, model: str, clock: Clock, *, silence_s: float = SILENCE_TIMEOUT_S) -> None:
        self._command = [sys.executable, "-m", "podfleet_node", "engine", "--engine", name, "--model", model]
        self._clock = clock
        self._silence_s = silence_s
        self._process: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self.model = ""
        self.speed = 1.0

    async def smoke_test(self, pcm: Path, *, language: str) -> None:
        """Load the model and run it once, on a second of audio. Raises SmokeTestFailed with the engine's words."""
        try:
            await self._start()
            with anyio.fail_after(SMOKE_TIMEOUT_S):
                await self.transcribe(pcm, SMOKE_AUDIO_S, language=language, progress=lambda _done_s: None)
        except TimeoutError:
            raise SmokeTestFailed(f"no answer within {SMOKE_TIMEOUT_S:.0f} s") from None
        except (EngineFailed, AudioBroken) as err:
            raise SmokeTestFailed(str(err)) from None

    async def transcribe(
        self, pcm: Path, audio_s: float, *, language: str, progress: Callable[[float], None]
    ) -> Transcript:
        """One job. Raises EngineFailed (also when the process died or went silent) or AudioBroken.

        Cancelling kills the process: there is no other way to stop C code. Measures the speed for the prefetch.
        """
        if self._process is None:
            await self._start()
        began_s = self._clock.monotonic_s()
        whole = False
        try:
            await self._ask({"pcm": str(pcm), "language": language})
            answer = await self._final_answer(progress)
            whole = True
        except AudioBroken:
            whole = True  # an answer like any other; the process is well
            raise
        finally:
            if not whole:
                await self.close()
        self._note_speed(audio_s, self._clock.monotonic_s() - began_s)
        segments = tuple(Segment(*segment) for segment in answer["segments"])
        return Transcript(segments, language=answer["language"], confidence=answer["confidence"])

    async def close(self) -> None:
        """Kill the process, if there is one. One that cannot die (in a driver that hangs) is left behind."""
        process, self._process, self._answers = self._process, None, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        with anyio.move_on_after(KILL_S, shield=True):
            await process.wait()
            await process.aclose()
            return
        log.error("engine.cannot_die", pid=process.pid)

    async def _start(self) -> None:
        self._process = await anyio.open_process(self._command, stdin=subprocess.PIPE, stderr=None)
        assert self._process.stdout is not None  # noqa: S101 - a pipe by default
        self._answers = BufferedByteReceiveStream(self._process.stdout)
        try:
            with anyio.fail_after(LOAD_TIMEOUT_S):
                self.model = (await self._answer())["model"]
        except BaseException as err:
            await self.close()
            if isinstance(err, TimeoutError):
                raise EngineFailed(f"the model was not loaded within {LOAD_TIMEOUT_S:.0f} s") from None
            raise

    async def _final_answer(self, progress: Callable[[float], None]) -> dict[str, Any]:
        while True:
            try:
                with anyio.fail_after(self._silence_s):
                    answer = await self._answer()
            except TimeoutError:
                raise EngineFailed(f"the engine was silent for {self._silence_s:.0f} s") from None
            if answer["event"] == "done":
                return answer
            progress(float(answer["done_s"]))

    async def _ask(self, request: dict[str, Any]) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        try:
            await self._process.stdin.send(json.dumps(request).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise EngineFailed("the engine's process is gone") from None

    async def _answer(self) -> dict[str, Any]:
        assert self._answers is not None  # noqa: S101
        try:
            line = await self._answers.receive_until(b"\n", LONGEST_LINE)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            raise EngineFailed(f"the engine's process died ({await self._exit_text()})") from None
        answer: dict[str, Any] = json.loads(line)
        if answer["event"] == "error":
            raise (AudioBroken if answer["permanent"] else EngineFailed)(answer["text"])
        return answer

    async def _exit_text(self) -> str:
        if self._process is None:
            return "it was stopped"
        with anyio.move_on_after(2.0):
            await self._process.wait()
        code = self._process.returncode
        return "no exit code" if code is None else f"exit code {code}"

    def _note_speed(self, audio_s: float, took_s: float) -> None:
        """Seconds of audio per second, smoothed; the smoke test gives the first guess."""
        measured = audio_s / max(took_s, 0.01)
        self.speed = measured if audio_s <= SMOKE_AUDIO_S else 0.5 * self.speed + 0.5 * measured
