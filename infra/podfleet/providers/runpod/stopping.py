"""Whether this process was told to begin nothing more: one sign for all its threads.

Our launcher of dynamic resources gives it when the engine cancels an update, or is gone. Every wait of a provider then
ends at once with Interrupted, but for the waits of somebody who must finish what he has begun (`finishing`): a POST
that was sent may have made a pod, and whether it did has to be found out. Under the stock launcher nobody gives it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from podfleet.errors import Interrupted

P = ParamSpec("P")
T = TypeVar("T")


class Stopping:
    """Thread-safe. What `finishing` covers is the calling thread's own."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._why = ""
        self._mine = threading.local()

    def ask(self, why: str) -> None:
        """From now on nothing is begun. The first reason stays."""
        self._why = self._why or why
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    @property
    def interrupts(self) -> bool:
        """Whether the calling thread is to stop."""
        return self.asked and not self._finishes()

    def check(self, what: str = "") -> None:
        """Raises Interrupted, so that `what` is not begun."""
        if self.interrupts:
            raise Interrupted(self._why, what)

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Interrupted as soon as it is asked for, unless this thread is finishing something."""
        if self._finishes():
            time.sleep(max(0.0, seconds))
            return
        if seconds > 0:
            self._asked.wait(seconds)
        self.check()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """What is in this block was begun before: it is not interrupted."""
        self._mine.depth = getattr(self._mine, "depth", 0) + 1
        try:
            yield
        finally:
            self._mine.depth -= 1

    def passed_on(self, call: Callable[P, T]) -> Callable[P, T]:
        """`call` for a thread that helps this one: what this one finishes, the helper finishes, too."""
        if not self._finishes():
            return call

        @wraps(call)
        def finishing(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.finishing():
                return call(*args, **kwargs)

        return finishing

    def _finishes(self) -> bool:
        return getattr(self._mine, "depth", 0) > 0


STOPPING = Stopping()  # a process has one engine
