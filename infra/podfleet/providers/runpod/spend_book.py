"""Where the spend guard keeps what no list says: reservations, and pods seen. A file per fleet in the state folder.

All provider processes of one checkout share it under a file lock, so that one that outlives its engine and the next one
do not exceed a limit together. Without a folder it is this process's memory alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from podfleet.errors import ProviderError
from podfleet.providers.runpod.clock import Clock
from podfleet.providers.runpod.spend_rules import Hold, Run

log = structlog.get_logger()
FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
LOCK_S = 30.0  # nothing slow happens under the lock
LOCK_PAUSE_S = 0.02


@dataclass(slots=True)
class Page:
    """What is written down of one fleet."""

    holds: dict[str, Hold] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    foreign: dict[str, float] = field(default_factory=dict)  # pods of others, and when they were last seen


class Book(Protocol):
    """One fleet's page, for as long as the block lasts nobody else's."""

    def open(self) -> AbstractContextManager[Page]: ...


class MemoryBook:
    """This process alone."""

    def __init__(self) -> None:
        self._page = Page()

    @contextmanager
    def open(self) -> Iterator[Page]:
        yield self._page


class FileBook:
    """Shared with the other processes of the checkout. A folder that cannot be written is no reason to rent nothing."""

    def __init__(self, folder: Path, uid: str, clock: Clock) -> None:
        self._file = folder / f"{uid}.json"
        self._clock = clock
        self._memory = Page()
        self._told = False

    @contextmanager
    def open(self) -> Iterator[Page]:
        """Locked by a file beside it. Raises ProviderError where somebody else keeps the lock."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._tell(error)
            yield self._memory
            return
        try:
            self._wait_for(lock)
            self._memory = self._read()
            yield self._memory
            self._write()
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        give_up_s = self._clock.monotonic_s() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic_s() > give_up_s:
                    text = f"another process has held {self._file.with_suffix('.lock')} for {LOCK_S:.0f} s"
                    raise ProviderError(f"{text}: nothing was rented; end that process, then run it again") from None
                self._clock.sleep(LOCK_PAUSE_S)
            else:
                return

    def _read(self) -> Page:
        try:
            return _page(json.loads(self._file.read_text("utf-8")))
        except FileNotFoundError:
            return Page()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._tell(error)
            return self._memory

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        try:
            new.touch(mode=0o600)
            new.write_text(json.dumps(_json(self._memory)), "utf-8")
            new.replace(self._file)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            log.warning("spend.book_unusable", file=str(self._file), reason=str(error) or type(error).__name__)
        self._told = True


def runs_in(state_dir: str, uid: str) -> dict[str, Run]:
    """The pods that this checkout has seen, for a look only: nothing is locked or written. Empty where unreadable."""
    if not FILE_NAME.fullmatch(uid):
        return {}
    try:
        return _page(json.loads((Path(state_dir) / "spend" / f"{uid}.json").read_text("utf-8"))).runs
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def book_in(state_dir: str, uid: str, clock: Clock) -> Book:
    """The book of this fleet; in memory where no folder is known."""
    if state_dir and FILE_NAME.fullmatch(uid):
        return FileBook(Path(state_dir) / "spend", uid, clock)
    return MemoryBook()


def this_process() -> str:
    """`host/pid`: who holds what."""
    return f"{socket.gethostname()}/{os.getpid()}"


def lives(owner: str) -> bool:
    """Whether the process is there; one on another machine counts as living."""
    host, _, pid = owner.rpartition("/")
    if host != socket.gethostname() or not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _json(page: Page) -> dict[str, Any]:
    holds = [
        {name: sorted(value) if isinstance(value, frozenset) else value for name, value in _fields(hold)}
        for hold in page.holds.values()
    ]
    runs = {pod_id: [run.usd_per_hr, run.since_s, run.until_s] for pod_id, run in page.runs.items()}
    return {"version": 1, "holds": holds, "runs": runs, "foreign": page.foreign}


def _fields(hold: Hold) -> Iterator[tuple[str, Any]]:
    for name in Hold.__slots__:
        yield name, getattr(hold, name)


def _page(content: dict[str, Any]) -> Page:
    holds = [Hold(**{**row, "before": frozenset(row["before"])}) for row in content["holds"]]
    runs = {str(pod_id): Run(*map(float, row)) for pod_id, row in content["runs"].items()}
    foreign = {str(pod_id): float(seen_s) for pod_id, seen_s in content["foreign"].items()}
    return Page({key_of(hold.owner, hold.name): hold for hold in holds}, runs, foreign)


def key_of(owner: str, name: str) -> str:
    """Where a hold stands on the page: one per process and name."""
    return f"{owner} {name}"
