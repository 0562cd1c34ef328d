"""Words with times → phrases → cast2md's Markdown. PURE. Engines make words, the worker sends the Markdown.

The server parses `**[MM:SS]** text` and indexes phrases; 40–200 characters serve its search best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_CHARS = 40
MAX_CHARS = 200
PAUSE_S = 0.35
SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True, slots=True)
class Word:
    """One word (or any piece of text without a good place to cut inside)."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One phrase."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What an engine heard in one episode."""

    segments: tuple[Segment, ...]
    language: str = "en"
    confidence: float = 1.0


def phrases(words: Iterable[Word]) -> tuple[Segment, ...]:
    """Join words to phrases: cut after a sentence or a pause once there are 40 characters, always before 200."""
    done: list[Segment] = []
    phrase: list[Word] = []
    for word in _split_long(words):
        if phrase and _cut_between(phrase, word):
            done.append(_joined(phrase))
            phrase = []
        phrase.append(word)
    if phrase:
        done.append(_joined(phrase))
    return tuple(_without_short_tail(done))


def markdown(transcript: Transcript) -> str:
    """The document that the server stores."""
    head = f"*Language: {transcript.language} ({transcript.confidence:.1%} confidence)*"
    body = [f"**[{timestamp(s.start_s)}]** {escaped(s.text)}" for s in transcript.segments]
    return "\n\n".join([head, *body]) + "\n"


def timestamp(seconds: float) -> str:
    """`MM:SS`, from one hour `HH:MM:SS`, whole seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


def escaped(text: str) -> str:
    """One line in which the server's parser sees no time stamp."""
    return " ".join(text.split()).replace("**[", r"\*\*[")


def _cut_between(phrase: Sequence[Word], word: Word) -> bool:
    chars = sum(len(w.text) + 1 for w in phrase) - 1
    if chars + 1 + len(word.text) > MAX_CHARS:
        return True
    ended = phrase[-1].text.endswith(SENTENCE_ENDS) or word.start_s - phrase[-1].end_s >= PAUSE_S
    return ended and chars >= MIN_CHARS


def _split_long(words: Iterable[Word]) -> Iterable[Word]:
    """Pieces of at most 200 characters; blank ones go."""
    for word in words:
        text = " ".join(word.text.split())
        for i in range(0, len(text), MAX_CHARS):
            yield Word(word.start_s, word.end_s, text[i : i + MAX_CHARS].strip())


def _joined(words: Sequence[Word]) -> Segment:
    return Segment(words[0].start_s, words[-1].end_s, " ".join(w.text for w in words))


def _without_short_tail(segments: list[Segment]) -> list[Segment]:
    if len(segments) < 2 or len(segments[-1].text) >= MIN_CHARS:
        return segments
    *rest, before, last = segments
    text = f"{before.text} {last.text}"
    return [*rest, Segment(before.start_s, last.end_s, text)] if len(text) <= MAX_CHARS else segments
