"""What an engine is. Engines live in a process of their own (`podfleet_node.engine_process`), one job at a time.

An engine is one file in this folder and one line in `ENGINES`; engines do not know each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podfleet_node.transcript import Transcript

SAMPLE_RATE = 16000
BYTES_PER_S = SAMPLE_RATE * 2


class Engine(Protocol):
    """A speech recogniser with its model loaded."""

    @property
    def model(self) -> str:
        """The model that really works, as the server shall store it."""

    def transcribe(self, pcm: Path, *, language: str, progress: Callable[[float], None]) -> Transcript:
        """Transcribe a raw file (mono, 16 kHz, int16 little endian).

        Calls `progress` with the seconds of audio done. Raises PermanentError for audio that no try will read, anything
        else for trouble of its own.
        """
