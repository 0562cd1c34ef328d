"""Phrases and the Markdown that the server parses."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from podfleet_node.transcript import (
    MAX_CHARS,
    MIN_CHARS,
    Segment,
    Transcript,
    Word,
    escaped,
    markdown,
    phrases,
    timestamp,
)

SERVER_PARSER = re.compile(r"\*\*\[(\d{1,2}:\d{2}(?::\d{2})?)\]\*\*\s*(.+?)(?=\*\*\[|\Z)", re.DOTALL)

texts = st.text(st.sampled_from("ab*[]\\.! \n01:"), min_size=1, max_size=30).filter(lambda text: text.strip())


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    at_s, words = 0.0, []
    for text in draw(st.lists(texts, max_size=120)):
        at_s += draw(st.floats(0, 2))
        words.append(Word(at_s, at_s + 0.2, text))
        at_s += 0.2
    return words


@given(spoken())
def test_phrases_keep_every_character_in_order_and_fit_the_index(words: list[Word]) -> None:
    made = phrases(words)
    assert "".join("".join(s.text for s in made).split()) == "".join("".join(w.text for w in words).split())
    assert all(len(s.text) <= MAX_CHARS for s in made)
    assert [s.start_s for s in made] == sorted(s.start_s for s in made)


@given(spoken())
@example([Word(0.0, 0.2, r"\*\*[")])
def test_the_server_parses_exactly_our_phrases(words: list[Word]) -> None:
    made = phrases(words)
    found = SERVER_PARSER.findall(markdown(Transcript(made)))
    assert [stamp for stamp, _ in found] == [timestamp(s.start_s) for s in made]
    assert [text.strip() for _, text in found] == [escaped(s.text) for s in made]


@given(texts)
def test_an_escaped_text_loses_nothing_but_white_space_and_time_stamps(text: str) -> None:
    assert escaped(text).replace(r"\*\*[", "**[") == " ".join(text.split()).replace(r"\*\*[", "**[")
    assert "**[" not in escaped(text)


def test_a_phrase_is_cut_after_a_pause_and_never_before_forty_characters() -> None:
    words = [Word(i * 0.3, i * 0.3 + 0.3, "word") for i in range(12)]
    words += [Word(10 + i * 0.3, 10.3 + i * 0.3, "next") for i in range(12)]
    made = phrases(words)
    assert [s.text.split()[0] for s in made] == ["word", "next"]
    assert all(len(s.text) >= MIN_CHARS for s in made)


def test_a_short_tail_joins_the_phrase_before() -> None:
    words = [Word(i, i + 0.1, "something") for i in range(5)] + [Word(9, 10, "end")]
    assert phrases(words)[-1].text.endswith("something end")


def test_time_stamps() -> None:
    assert [timestamp(s) for s in (0, 59.99, 60, 3599, 3600, 7325.5)] == [
        "00:00",
        "00:59",
        "01:00",
        "59:59",
        "01:00:00",
        "02:02:05",
    ]


def test_the_document_as_the_server_stores_it() -> None:
    made = Transcript((Segment(0, 5, "one **[00:09]** two"), Segment(61, 70, "three")), language="en")
    assert markdown(made) == (
        "*Language: en (100.0% confidence)*\n\n**[00:00]** one \\*\\*[00:09]** two\n\n**[01:01]** three\n"
    )


def test_nothing_heard_gives_no_phrase() -> None:
    assert phrases([]) == ()
    assert phrases([Word(0, 1, "  ")]) == ()
