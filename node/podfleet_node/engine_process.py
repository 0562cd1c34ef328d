"""The process that holds the engine: `podfleet-node engine`. Started by `podfleet_node.engine_host`.

Requests come on stdin, answers go to stdout, JSON lines. A process of its own because an engine may keep the
interpreter's lock for seconds, crash in C, or have to start again with other settings; heartbeats must not notice.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podfleet_node import engines
from podfleet_node.errors import PermanentError

if TYPE_CHECKING:
    from podfleet_node.engines.base import Engine


def serve(name: str, model: str) -> int:
    """Load the engine, then transcribe what is asked for, until stdin ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker ends us; a stop must not look like a crash
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    out = _own_stdout()
    try:
        engine = engines.load(name, model)
    except Exception as err:  # noqa: BLE001 - whatever a model's loader raises is the answer
        _tell(out, event="error", text=f"{type(err).__name__}: {err}", permanent=False)
        return 1
    _tell(out, event="loaded", model=engine.model)
    for line in sys.stdin:
        _transcribe(engine, out, json.loads(line))
    return 0


def die_with_parent() -> None:
    """On Linux the kernel ends us when the worker dies without a word, even in the middle of C code."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 - Linux only

    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


def _transcribe(engine: Engine, out: Any, request: dict[str, Any]) -> None:
    def progress(done_s: float) -> None:
        _tell(out, event="progress", done_s=done_s)

    try:
        heard = engine.transcribe(Path(request["pcm"]), language=request["language"], progress=progress)
    except Exception as err:  # noqa: BLE001 - the outermost loop of this process: every error is an answer
        permanent = isinstance(err, PermanentError)
        _tell(out, event="error", text=f"{type(err).__name__}: {err}", permanent=permanent)
        return
    segments = [[s.start_s, s.end_s, s.text] for s in heard.segments]
    _tell(out, event="done", segments=segments, language=heard.language, confidence=heard.confidence)


def _own_stdout() -> Any:
    """Keep stdout for answers; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def _tell(out: Any, **message: Any) -> None:
    try:
        out.write(json.dumps(message, default=float) + "\n")
        out.flush()
    except BrokenPipeError:
        sys.exit(0)
