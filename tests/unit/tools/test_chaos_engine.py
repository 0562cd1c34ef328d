"""The stand-in engine keeps what Pulumi's keeps and loses what it loses; the verdict counts what nobody owns."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from tools.chaos.cases import Request, all_points
from tools.chaos.engine import Answer, Ask, Engine, StepFailed
from tools.chaos.point import UPDATES
from tools.chaos.program import Declared, Fleet, Ref, Size
from tools.chaos.statefile import Resource, StateFile
from tools.chaos.verdict import Books, Canaries, foreign_problems, orphans, pod_problems

FLEET = Fleet("t-0badcafe", "podfleet-t-", "tskey-auth-SECRET")


class Cloud:
    """A port that says yes, writes down what it was asked for, and does what a test tells it."""

    def __init__(self, state: StateFile) -> None:
        self.asked: list[str] = []
        self.does: dict[str, Callable[[], None]] = {}
        self.replaces: set[str] = set()
        self._state = state
        self._count = 0

    def ask(self, ask: Ask) -> Answer:
        what = f"{ask.verb} {ask.news.get('slot') or ask.olds.get('slot') or ask.kind}"
        if ask.verb not in ("check", "diff"):
            self.asked.append(what)
            self.does.get(what, lambda: None)()
        self._count += 1
        if ask.verb == "diff":
            other = any(value not in (None, ask.olds.get(key)) for key, value in ask.news.items())
            return Answer(changes=other, replace=other and ask.kind == "pod")
        return Answer(ask.id or f"id-{self._count}", {**(ask.news or ask.olds), "generation": "g"})


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state.json", Fernet.generate_key())


@pytest.fixture
def cloud(state: StateFile) -> Cloud:
    return Cloud(state)


def fails() -> None:
    raise StepFailed("no")


def up(cloud: Cloud, state: StateFile, size: Size) -> bool:
    return Engine(cloud, state, lambda _: None).update(FLEET.program(size))


def destroy(cloud: Cloud, state: StateFile) -> bool:
    return Engine(cloud, state, lambda _: None).destroy()


def test_guard_comes_before_the_pods_and_sweep_after_them(cloud: Cloud, state: StateFile) -> None:
    assert up(cloud, state, Size(2))
    assert cloud.asked[:3] == ["create holdings", "create secret", "create guard"]
    assert set(cloud.asked[3:5]) == {"create slot-01", "create slot-02"}
    assert cloud.asked[5:] == ["create sweep"]
    assert state.load()["sweep"].inputs["pods"] == [state.load()[slot].id for slot in ("slot-01", "slot-02")]


def test_a_second_up_changes_nothing(cloud: Cloud, state: StateFile) -> None:
    up(cloud, state, Size(2))
    cloud.asked.clear()
    assert up(cloud, state, Size(2))
    assert cloud.asked == []


def test_what_is_not_wanted_any_more_is_deleted_last(cloud: Cloud, state: StateFile) -> None:
    up(cloud, state, Size(2))
    cloud.asked.clear()
    assert up(cloud, state, Size(1))
    assert cloud.asked == ["update guard", "update sweep", "delete slot-02"]


def test_another_image_deletes_before_it_creates(cloud: Cloud, state: StateFile) -> None:
    up(cloud, state, Size(1))
    cloud.asked.clear()
    assert up(cloud, state, Size(1, image=1))
    assert cloud.asked == ["update guard", "delete slot-01", "create slot-01", "update sweep"]


def test_a_destroy_deletes_dependents_first(cloud: Cloud, state: StateFile) -> None:
    up(cloud, state, Size(1))
    cloud.asked.clear()
    assert destroy(cloud, state)
    assert cloud.asked == [f"delete {name}" for name in ("sweep", "slot-01", "guard", "secret", "holdings")]
    assert state.load() == {}


def test_one_failure_begins_nothing_new_and_saves_what_is_under_way(cloud: Cloud, state: StateFile) -> None:
    begun, failed = threading.Event(), threading.Event()

    def fail() -> None:
        assert begun.wait(10)
        failed.set()
        fails()

    def last() -> None:
        begun.set()
        assert failed.wait(10)

    cloud.does = {"create slot-01": fail, "create slot-02": last}
    assert not up(cloud, state, Size(2))
    assert set(state.load()) == {"holdings", "secret", "guard", "slot-02"}
    assert "create sweep" not in cloud.asked


def test_a_resource_is_saved_only_when_its_create_has_returned(cloud: Cloud, state: StateFile) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        saved = json.loads(state.path.read_text())
        seen.append([each["name"] for each in saved["resources"]])
        assert saved["pending"] == ["create slot-01"]

    cloud.does = {"create slot-01": look}
    assert up(cloud, state, Size(1))
    assert seen == [["holdings", "secret", "guard"]]


def test_an_abandoned_engine_saves_nothing_more(cloud: Cloud, state: StateFile) -> None:
    engine = Engine(cloud, state, lambda _: None)
    cloud.does = {"create slot-01": engine.abandon}
    assert not engine.update(FLEET.program(Size(1)))
    assert set(state.load()) == {"holdings", "secret", "guard"}


def test_secrets_are_sealed_and_owners_told(tmp_path: Path) -> None:
    told: list[list[str]] = []
    state = StateFile(tmp_path / "state.json", Fernet.generate_key(), told.append)
    up(Cloud(state), state, Size(1))
    assert Canaries((FLEET.secret_value,)).in_files(tmp_path) == []
    assert state.load()["secret"].inputs["value"] == FLEET.secret_value
    assert told[0] == []
    assert told[-1] == [state.load()["slot-01"].id]


def test_a_reference_makes_a_dependency() -> None:
    declared = Declared("b", "sweep", {"pods": [Ref("a", "id")], "g": {"x": Ref("c", "y")}}, after=("d",))
    assert declared.dependencies == {"a", "c", "d"}


# Points


def test_each_point_has_a_name_of_its_own_and_both_follow_ups() -> None:
    ops = ("pods.list", "pods.create", "pods.delete", "secrets.create")
    traffic = {update: [Request(op) for op in ops] + [Request("pods.delete", accepted=False)] for update in UPDATES}
    points = all_points(traffic)
    names = [point.name for point in points]
    assert len(names) == len(set(names)) >= 300
    bare = [name.replace("refresh and ", "").rpartition(", then ") for name in names]
    assert {name for name, _, then in bare if then == "up"} == {name for name, _, then in bare if then == "destroy"}
    assert not any("pods.delete 2 before the answer" in name for name in names), "a refused request commits nothing"


# The verdict


def pod(name: str, id_: str, status: str = "RUNNING", uid: str = FLEET.uid) -> dict[str, object]:
    return {"id": id_, "name": f"{FLEET.prefix}{name}", "status": status, "env": {"PODFLEET_UID": uid}}


def test_pods_have_to_be_those_that_are_wanted_and_known() -> None:
    one, two = f"{FLEET.prefix}a", f"{FLEET.prefix}b"
    both = [pod("a", "1"), pod("b", "2"), pod("b", "3", "TERMINATED"), pod("b", "4", uid="other")]
    assert pod_problems(both, FLEET, [one, two], {"1", "2"}) == []
    assert orphans(both, FLEET, [one, two], {"1", "2"}) == 0
    for wanted, known in (([one], {"1", "2"}), ([one, two], {"1"}), ([one, two, two], {"1", "2"})):
        assert pod_problems(both, FLEET, wanted, known)
    assert orphans(both, FLEET, [one], {"1", "2"}) == orphans(both, FLEET, [one, two], {"1"}) == 1
    assert pod_problems([pod("a", "1", "ERROR")], FLEET, [one], {"1"})
    assert foreign_problems(both, {"4"}) == []
    assert foreign_problems(both, {"3"}) != []


def test_unowned_time_is_counted_from_the_follow_up_on() -> None:
    def line(id_: str, unowned_s: float) -> dict[str, object]:
        return {"id": id_, "name": f"{FLEET.prefix}a", "unowned_s": unowned_s}

    before = Books.of({"pods": [line("1", 100.0)]}, FLEET.prefix, ())
    after = Books.of({"pods": [line("1", 103.0), line("2", 14.0), line("theirs", 500.0)]}, FLEET.prefix, {"theirs"})
    assert after.since(before) == 14.0


def test_the_state_keeps_the_order_of_creation(state: StateFile) -> None:
    made = {name: Resource(name, "pod", name, {}, {}, []) for name in ("b", "a")}
    state.save(made, [])
    assert list(state.load()) == ["b", "a"]
    assert state.pod_ids() == {"a", "b"}
