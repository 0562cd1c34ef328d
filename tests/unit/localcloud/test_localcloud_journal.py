"""The journal: the last word counts, a cut line is none; the keeper writes what changed and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localcloud.journal import Journal
from localcloud.keeping import Keeper, Part

KEYS = st.sampled_from("abc")
CHANGES = st.lists(st.dictionaries(KEYS, st.dictionaries(KEYS, st.none() | st.integers())), max_size=12)


def applied(changes: list[dict[str, dict[str, int | None]]]) -> dict[str, dict[str, int]]:
    kept: dict[str, dict[str, int]] = {}
    for line in changes:
        for part, values in line.items():
            records = {**kept.get(part, {}), **{key: value for key, value in values.items() if value is not None}}
            kept[part] = {key: value for key, value in records.items() if values.get(key, 0) is not None}
    return kept


@settings(max_examples=40)
@given(CHANGES, st.integers(0, 400))
def test_a_file_cut_anywhere_holds_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, dict[str, int | None]]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    for change in changes:
        journal.write(change)
    journal.close()
    text = path.read_bytes() if changes else b""
    path.write_bytes(text[:cut])
    whole = text[:cut].count(b"\n")
    assert Journal(path).read() == applied(changes[:whole])
    assert Journal(path).read() == applied(changes[:whole])


def test_only_what_changed_is_written_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    state: dict[str, int] = {}
    part = Part("numbers", lambda: dict(state), lambda key: {"n": state[key]}, state.update)
    keeper = Keeper(Journal(path), [part])
    keeper.restore()
    for change in ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3}, {"b": 3}):
        state.clear()
        state.update(change)
        keeper.keep()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    assert lines == [
        {"numbers": {"a": {"n": 1}, "b": {"n": 2}}},
        {"numbers": {"b": {"n": 3}}},
        {"numbers": {"a": None}},
    ]
    assert Journal(path).read() == {"numbers": {"b": {"n": 3}}}
