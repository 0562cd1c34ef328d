"""How long an audio file is, when PyAV is installed; unknown otherwise.

Called by `queue_routes` for each upload, in a worker thread. The queue does not need the length, the fleet's sizing
is better with it. Importing av takes longer than starting the server: it is imported at the first upload.
"""

from pathlib import Path


def length_s(path: Path) -> float | None:
    """Seconds of audio, or None when it cannot be told (no PyAV, not audio, length not in the container)."""
    try:
        import av  # noqa: PLC0415 - optional and slow to import
    except ImportError:
        return None
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if container.duration is None or not container.streams.audio:
                return None
            return round(container.duration / av.time_base, 3)
    except (av.FFmpegError, ValueError, UnicodeError):
        return None
