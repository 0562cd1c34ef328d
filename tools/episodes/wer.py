"""Word error rate. PURE. Called by `make_episodes.py`, by the demo and by tests.

A word is what a listener would write: letters and apostrophes, any case, no punctuation. The time marks and the
language line of a transcript (`**[MM:SS]** text`) are not words; `words_of_transcript` drops them first.
"""

import re

_NOT_A_WORD = re.compile(r"[^a-z' ]+")
_TIME_MARK = re.compile(r"\*\*\[\d{1,2}:\d{2}(?::\d{2})?\]\*\*")


def normalise(text: str) -> list[str]:
    """The words of a text, lower case; typographic apostrophes count as plain ones."""
    plain = _NOT_A_WORD.sub(" ", text.lower().replace("\u2019", "'"))
    return [word for word in (raw.strip("'") for raw in plain.split()) if word]


def words_of_transcript(markdown: str) -> list[str]:
    """The words of a stored transcript, without title, language line and time marks."""
    lines = (line for line in markdown.splitlines() if not line.startswith(("# ", "*Language:")))
    return normalise(_TIME_MARK.sub(" ", "\n".join(lines)))


def errors(reference: list[str], heard: list[str]) -> int:
    """Substituted, left out and added words: the Levenshtein distance of the two lists."""
    row = list(range(len(heard) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != word))
    return row[-1]


def word_error_rate(reference: list[str], heard: list[str]) -> float:
    """Errors per word of the reference; may exceed 1. Raises ValueError for an empty reference."""
    if not reference:
        raise ValueError("the reference has no words")
    return errors(reference, heard) / len(reference)


def mean_error_rate(pairs: list[tuple[list[str], list[str]]]) -> float:
    """The rate over several episodes together: all errors per all words, so that a short one weighs less."""
    total = sum(len(reference) for reference, _ in pairs)
    if total == 0:
        raise ValueError("the references have no words")
    return sum(errors(reference, heard) for reference, heard in pairs) / total
