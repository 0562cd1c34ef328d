"""What `podfleet status` says: rows, drift, money, the lines below the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet.config import PodfleetConfig
from podfleet.errors import ApiUnavailable, ProviderError, SignalError
from podfleet.glance import look
from podfleet.overview import Drift, Money, drift, money, node_word, rows
from podfleet.podspec import pod_spec, remote_name
from podfleet.providers.runpod.spend_rules import Run
from podfleet.providers.runpod.wire import PodView
from podfleet.providers.runpod.wire_account import Balance, BillRecord
from podfleet.signals.queue import Node
from podfleet.tables import lines, show
from podfleet.workspace import Workspace

UID, PREFIX, NOW_S = "local-00000001", "podfleet-local-", 1_800_000_000.0
CONFIG = PodfleetConfig.model_validate(
    {
        "uid": UID,
        "pods": 3,
        "image": "i:1",
        "gpuTypes": ["NVIDIA L4"],
        "queueUrl": "http://q",
        "bootstrap": "none",
        "decision": "2 → 3 pods: 9 jobs",
    }
)


def pod(slot: int, **more: Any) -> PodView:
    name = remote_name(PREFIX, f"slot-{slot:02d}", UID, pod_spec(CONFIG))
    view = PodView(
        f"pod{slot}", name, "RUNNING", uid=UID, gpu="NVIDIA L4", cloud="SECURE", data_center_id="EU-RO-1",
        cost_usd_per_hr=0.5, created_at_s=NOW_S - 7200, expires_at_s=NOW_S + 3600,
    )  # fmt: skip
    return replace(view, **more)


def test_each_difference_is_named_once() -> None:
    pods = [
        pod(1),
        pod(1, id="double"),
        pod(2, status="EXITED"),
        pod(7),
        pod(9, name=f"{PREFIX}slot-09-deadbeef"),
    ]
    assert drift(CONFIG, pods, prefix=PREFIX) == Drift(
        missing=("slot-03",), ended=("slot-02",), not_wanted=("slot-07", "slot-09"), doubled=("slot-01",)
    )
    other = pod(3, name=f"{PREFIX}slot-03-deadbeef")
    assert drift(CONFIG, [pod(1), pod(2), other], prefix=PREFIX) == Drift(other_spec=("slot-03",))
    assert not drift(CONFIG, [pod(1), pod(2), pod(3)], prefix=PREFIX)


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["RUNNING", "EXITED", "PROVISIONING"])), max_size=8))
def test_every_wanted_slot_is_there_or_named(found: list[tuple[int, str]]) -> None:
    pods = [pod(slot, id=str(n), status=status) for n, (slot, status) in enumerate(found)]
    seen = drift(CONFIG, pods, prefix=PREFIX)
    good = {slot for slot in CONFIG.wanted_slots if any(p.live and slot in p.name for p in pods)}
    assert good.isdisjoint(seen.missing + seen.ended)
    assert good | set(seen.missing) | set(seen.ended) == set(CONFIG.wanted_slots)


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (None, "not heard"),
        (Node("n", online=True, idle=True, beat_s=NOW_S), "idle"),
        (Node("n", online=True, idle=False), "working"),
        (Node("n", online=False, idle=False, beat_s=NOW_S - 90), "silent"),
        (Node("n", online=True, idle=True, beat_s=NOW_S - 9000), "not heard"),
    ],
)
def test_words_for_a_node(node: Node | None, word: str) -> None:
    assert node_word(pod(1), {pod(1).name: node} if node else {}) == word
    assert node_word(pod(1), None) == "unknown"
    assert node_word(pod(1, status="EXITED"), {}) == "-"


def test_the_day_is_the_bill_and_at_least_price_times_time() -> None:
    gone = {"gone": Run(1.0, NOW_S - 10_800, NOW_S - 3600)}
    both = money([pod(1), pod(2)], {"pod1": 3.0, "foreign": 50.0}, gone, None, now_s=NOW_S)
    assert both == Money(1.0, 3.0 + 1.0 + 2.0, bill_read=True)
    assert money([pod(1)], None, {}, None, now_s=NOW_S) == Money(0.5, 1.0, bill_read=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\n")
    return Workspace(tmp_path, "local")


class Cloud:
    """Lists two pods of ours and a foreign one; the bill and the balance may be silent."""

    def __init__(self, *, pods: ProviderError | None = None, bill: ProviderError | None = None) -> None:
        self.pods, self.bill = pods, bill
        self.money: Balance | None = Balance(4.0, 1.0)

    def list_pods(self) -> tuple[PodView, ...]:
        if self.pods:
            raise self.pods
        return (pod(2, status="EXITED", cost_usd_per_hr=0.0), pod(1), pod(3, uid="local-99999999"))

    def pod_billing(self, *, start_s: float, end_s: float) -> tuple[BillRecord, ...]:
        if self.bill:
            raise self.bill
        return (BillRecord("pod1", start_s, end_s, 2.5), BillRecord("pod3", start_s, end_s, 9.0))

    def balance(self) -> Balance | None:
        return self.money


class Queue:
    def __init__(self, error: SignalError | None = None) -> None:
        self.error = error

    def nodes(self) -> dict[str, Node]:
        if self.error:
            raise self.error
        return {pod(1).name: Node(pod(1).name, online=True, idle=False)}


def test_one_screen(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    seen = look(workspace, CONFIG, Cloud(), Queue(), now_s=NOW_S)
    show(seen, low_balance_hours=6)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "slot id status node gpu place $/h age left",
        "slot-01 pod1 RUNNING working NVIDIA L4 EU-RO-1 secure 0.50 2 h 0 min 1 h 0 min",
        "slot-02 pod2 EXITED - NVIDIA L4 EU-RO-1 secure 0.00 2 h 0 min 1 h 0 min",
        "2 of 3 pods, $0.50/h now, $2.50 in the last 24 h",
        "missing: slot-03 (`podfleet up` rents them)",
        "not alive: slot-02 (`podfleet up` replaces them)",
        (
            "LOW: balance $4.00, lasts 4.0 h at $1.00/h ($0.50/h of it by others); podfleet:lowBalanceHours is 6; "
            "at $0 RunPod ends all pods: top up, or ask for fewer"
        ),
        "last decision: 2 → 3 pods: 9 jobs",
    ]


def test_queue_bill_and_balance_may_be_silent(workspace: Workspace) -> None:
    cloud = Cloud(bill=ApiUnavailable("RunPod says 500: x"))
    cloud.money = None
    seen = look(workspace, CONFIG, cloud, Queue(SignalError("http://q: refused")), now_s=NOW_S)
    told = list(lines(seen, low_balance_hours=6))
    assert told[0].endswith("$1.00 in the last 24 h at least (the bill cannot be read)")
    assert "queue does not answer: http://q: refused" in told
    assert not any("balance" in line for line in told)
    assert [row.node for row in seen.pods] == ["unknown", "-"]


def test_without_the_list_there_is_no_status(workspace: Workspace) -> None:
    with pytest.raises(ApiUnavailable):
        look(workspace, CONFIG, Cloud(pods=ApiUnavailable("x")), Queue(), now_s=NOW_S)


def test_programs_get_the_same_in_json(workspace: Workspace) -> None:
    seen = json.loads(json.dumps(look(workspace, CONFIG, Cloud(), Queue(), now_s=NOW_S).json()))
    assert [row["slot"] for row in seen["pods"]] == ["slot-01", "slot-02"]
    assert seen["drift"] == {
        "missing": ["slot-03"], "not_wanted": [], "ended": ["slot-02"], "other_spec": [], "doubled": []
    }  # fmt: skip
    assert (seen["usd_per_hr"], seen["usd_last_24_h"], seen["balance_usd"], seen["queue"]) == (0.5, 2.5, 4.0, "ok")


def test_a_pod_past_its_lifetime_is_told() -> None:
    (row,) = rows([pod(1, expires_at_s=NOW_S - 720)], {}, prefix=PREFIX, now_s=NOW_S)
    assert row.lifetime_left_s == -720
    (endless,) = rows([pod(1, expires_at_s=None)], {}, prefix=PREFIX, now_s=NOW_S)
    assert endless.lifetime_left_s is None
