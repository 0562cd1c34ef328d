"""Audio made on the spot, for engines that do not listen."""

from __future__ import annotations

import wave
from io import BytesIO

RATE_HZ = 16_000


def silence(seconds: float = 2) -> bytes:
    """A WAV of zeros, 16 kHz mono."""
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(b"\0\0" * int(RATE_HZ * seconds))
    return out.getvalue()
