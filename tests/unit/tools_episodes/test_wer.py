"""The word error rate, and what the committed references promise. No audio here."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.episodes.wer import errors, mean_error_rate, normalise, word_error_rate, words_of_transcript

words = st.lists(st.sampled_from(["tide", "moon", "bread", "tea"]), max_size=12)
EPISODES = Path(__file__).parents[3] / "tools" / "episodes"


@pytest.mark.parametrize(
    ("reference", "heard", "rate"),
    [
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "a x c d", 0.25),
        ("a b c d", "a b d", 0.25),
        ("a b c d", "a b b c d", 0.25),
        ("a b c d", "", 1.0),
        ("a", "x y z", 3.0),
    ],
)
def test_one_error_is_one_substituted_missing_or_added_word(reference: str, heard: str, rate: float) -> None:
    assert word_error_rate(normalise(reference), normalise(heard)) == rate


def test_case_punctuation_and_typographic_apostrophes_do_not_count() -> None:
    assert normalise("It\u2019s LATE - isn't it? 'Yes.'") == ["it's", "late", "isn't", "it", "yes"]


def test_time_marks_language_line_and_title_are_not_words() -> None:
    markdown = "# Tides\n\n*Language: en (100.0% confidence)*\n\n**[00:00]** The tide\n\n**[01:02:03]** goes out.\n"
    assert words_of_transcript(markdown) == ["the", "tide", "goes", "out"]


def test_the_mean_weighs_by_words() -> None:
    assert mean_error_rate([(["a"] * 9, ["a"] * 9), (["b"], ["x"])]) == 0.1


def test_a_rate_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="no words"):
        word_error_rate([], ["a"])
    with pytest.raises(ValueError, match="no words"):
        mean_error_rate([])


@given(words, words, words)
def test_errors_are_a_distance(a: list[str], b: list[str], c: list[str]) -> None:
    assert errors(a, a) == 0
    assert errors(a, b) == errors(b, a)
    assert errors(a, c) <= errors(a, b) + errors(b, c)
    assert abs(len(a) - len(b)) <= errors(a, b) <= max(len(a), len(b))


def test_every_episode_has_audio_of_the_promised_size_and_times_for_its_sentences() -> None:
    episodes = json.loads((EPISODES / "references.json").read_text(encoding="utf-8"))["episodes"]
    assert len(episodes) >= 16
    assert {path.name for path in (EPISODES / "audio").iterdir()} == {episode["file"] for episode in episodes}
    assert len({episode["text"] for episode in episodes}) == len(episodes)
    for voice in ("rms", "slt"):
        assert sum(episode["voice"] == voice for episode in episodes) >= 8
    for episode in episodes:
        assert 110 <= len(normalise(episode["text"])) <= 200
        assert 40 <= episode["seconds"] <= 90
        assert (EPISODES / "audio" / episode["file"]).stat().st_size < 350_000
        ends = [time for span in episode["sentence_times_s"] for time in span]
        assert ends == sorted(ends)
        assert ends[-1] < episode["seconds"]


def test_no_reference_text_lies_beside_the_audio() -> None:
    assert {path.suffix for path in (EPISODES / "audio").iterdir()} == {".opus"}
