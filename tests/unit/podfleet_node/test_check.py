"""`podfleet-node check` fails when the pod cannot do what is asked of it."""

from __future__ import annotations

import pytest

from podfleet_node.check import missing


@pytest.mark.parametrize(
    ("environ", "engine", "words"),
    [
        ({"PODFLEET_ENGINE": "scripted"}, "", []),
        ({"PODFLEET_ENGINE": "parrot"}, "", ["'parrot' is not in this pod"]),
        ({"PODFLEET_ENGINE": "parrot"}, "scripted", []),
        ({}, "parrot", ["'parrot' is not in this pod"]),
        ({}, "", []),
    ],
)
def test_an_engine_that_is_not_there_is_named(environ: dict[str, str], engine: str, words: list[str]) -> None:
    found = missing({"PODFLEET_ROOT": "/nowhere", "PATH": "", **environ}, engine)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))
