"""What a check says: ok, something to know, or something to mend; and how a list of them is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

WIDTH = 18


class Level(StrEnum):
    """How bad it is. Only `fail` makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `do` says what mends it; empty where nothing needs to be done."""

    what: str
    level: Level
    text: str
    do: str = ""

    def line(self) -> str:
        """For people; what to do stands below."""
        first = f"{self.level:<5} {self.what:<{WIDTH}} {self.text}"
        return f"{first}\n{'':<{WIDTH + 7}}→ {self.do}" if self.do else first


def ok(what: str, text: str) -> Finding:
    return Finding(what, Level.OK, text)


def warn(what: str, text: str, do: str = "") -> Finding:
    return Finding(what, Level.WARN, text, do)


def fail(what: str, text: str, do: str) -> Finding:
    return Finding(what, Level.FAIL, text, do)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where something has to be mended."""
    return int(any(each.level is Level.FAIL for each in findings))


def last_line(findings: Sequence[Finding]) -> str:
    """The sum, in one line."""
    count = {level: sum(each.level is level for each in findings) for level in Level}
    if count[Level.FAIL]:
        return f"{count[Level.FAIL]} to mend, {count[Level.WARN]} to know, {count[Level.OK]} ok"
    return f"nothing to mend: {count[Level.OK]} ok" + (f", {count[Level.WARN]} to know" if count[Level.WARN] else "")


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """For programs."""
    return {"ok": not exit_code(findings), "findings": [asdict(each) for each in findings]}
