"""`podfleet doctor` against the stand-in cloud: the stack's checks, the live questions, one pod rented for a moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.testing import RunningCloud, running, wait_until
from podfleet.doctor.findings import Finding, Level, exit_code
from podfleet.doctor.live import ask_live, v1_url
from podfleet.doctor.probe import Probe
from podfleet.doctor.raw import Raw
from podfleet.doctor.stack import check_stack
from podfleet.providers.runpod.clock import RealClock
from podfleet.stackcloud import stack_cloud
from podfleet.workspace import Workspace, complete

UID = "dev-0badcafe"
NOW_S = 1_800_000_000.0


@dataclass
class Checkout:
    """A project folder with one stack, pointed at a cloud of its own."""

    workspace: Workspace
    cloud: RunningCloud
    outer: dict[str, str]

    def write(self, **changes: object) -> None:
        values = {
            "uid": UID,
            "image": "localhost/podfleet-node:dev",
            "gpuTypes": ["NVIDIA RTX A4000"],
            "bootstrap": "none",
            "queueUrl": "http://127.0.0.1:9",
            "runpodUrl": self.cloud.runpod_url,
            "tailscaleUrl": self.cloud.tailscale_url,
            "backendUrl": "file://.podfleet/state",
            "absenceIntervalSeconds": 0.2,
            "pollIntervalSeconds": 0.3,
            "reconcileSeconds": 1,
            **changes,
        }
        content = {"config": {f"podfleet:{key}": value for key, value in values.items() if value is not None}}
        self.workspace.stack_file.write_text(yaml.safe_dump(content))

    @property
    def env(self) -> dict[str, str]:
        return complete(self.workspace, self.outer)

    def findings(self) -> dict[str, Finding]:
        """The worst of each name."""
        found: dict[str, Finding] = {}
        for each in check_stack(self.workspace, self.env, now_s=NOW_S):
            if each.what not in found or each.level is not Level.OK:
                found[each.what] = each
        return found

    def probe(self) -> list[Finding]:
        config, clock = self.workspace.config(), RealClock()
        with stack_cloud(self.workspace, config, self.env, clock=clock) as parts:
            probe = Probe(config, prefix=self.workspace.prefix, cloud=parts, clock=clock)
            return list(probe.findings(probe.offers()))


@pytest.fixture(scope="module")
def doctors_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    with running(tmp_path_factory.mktemp("cloud"), boot_s=0.2, ssh_s=0.1, grace_s=1.0) as cloud:
        yield cloud


@pytest.fixture
def checkout(doctors_cloud: RunningCloud, tmp_path: Path) -> Iterator[Checkout]:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: podfleet\nruntime: python\n")
    keys = {name: value for name, value in doctors_cloud.environ.items() if name.endswith("_KEY")}
    made = Checkout(Workspace(tmp_path, "dev"), doctors_cloud, {"PATH": os.defpath, "HOME": str(tmp_path), **keys})
    made.write()
    yield made
    doctors_cloud.release()
    doctors_cloud.reset()


# The stack


def test_a_stack_in_order_has_nothing_to_mend(checkout: Checkout) -> None:
    found = checkout.findings()
    assert exit_code(found.values()) in (0, int(found["clock"].level is Level.FAIL))
    assert found["RunPod key"].text == "accepted; 0 pods in the account, 0 of this stack"
    assert "is NVIDIA RTX A4000 at $0.25/h" in found["GPU types"].text
    assert found["queue"].level is Level.WARN
    assert found["lock"].text == "free"
    assert found["state"].text.startswith("none yet")


@pytest.mark.parametrize(
    ("change", "what", "said"),
    [
        ({"pods": "many"}, "stack file", "podfleet:pods"),
        ({"uid": None}, "stack file", "no uid"),
        ({"uid": "prod-0badcafe"}, "stack file", "was its file copied?"),
        ({"gpuTypes": ["RTX A4000"]}, "GPU types", "not in the catalogue: RTX A4000"),
        ({"tailnet": "-", "tailscaleUrl": "http://127.0.0.1:9"}, "tailnet", "no answer"),
        ({"image": "you/node"}, "config", "podfleet:image you/node is not pinned"),
        ({"maxRuntimeMinutes": 0}, "config", "podfleet:maxRuntimeMinutes 0"),
        ({"queueUrl": "http://100.64.0.1:8000"}, "config", "is in a tailnet, and podfleet:join is false"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    checkout: Checkout, change: dict[str, Any], what: str, said: str
) -> None:
    checkout.write(**change)
    finding = checkout.findings()[what]
    assert finding.level is not Level.OK
    assert said in finding.text
    assert finding.do


def test_a_wrong_key_and_none_are_told_without_the_key(checkout: Checkout) -> None:
    checkout.outer["RUNPOD_API_KEY"] = "rpa_wrong"
    found = checkout.findings()
    assert found["RunPod key"].level is Level.FAIL
    assert not any("rpa_wrong" in f"{each.text}{each.do}" for each in found.values())
    checkout.outer["RUNPOD_API_KEY"] = ""
    assert checkout.findings()["RunPod key"].text == "RUNPOD_API_KEY is empty"


def test_a_tailnet_key_is_tried(checkout: Checkout) -> None:
    checkout.write(tailnet="-")
    assert checkout.findings()["tailnet"].level is Level.OK
    checkout.outer["TAILSCALE_API_KEY"] = "tskey-api-wrong"
    refused = checkout.findings()["tailnet"]
    assert refused.level is Level.FAIL
    assert "tskey-api-wrong" not in refused.text
    del checkout.outer["TAILSCALE_API_KEY"]
    assert "no credentials" in checkout.findings()["tailnet"].text


def test_a_cloud_that_is_not_there_is_one_line(checkout: Checkout) -> None:
    checkout.write(runpodUrl="http://127.0.0.1:9")
    assert "no answer from RunPod at http://127.0.0.1:9" in checkout.findings()["RunPod"].text


# Live


def live(checkout: Checkout) -> dict[str, Finding]:
    key, url = checkout.cloud.api_key, checkout.cloud.runpod_url
    with Raw(url, key) as api, Raw(v1_url(url)) as v1:
        return {each.what: each for each in ask_live(api, v1)}


def test_the_live_questions_cost_nothing_and_change_nothing(checkout: Checkout) -> None:
    since = checkout.cloud.last_seq()
    found = live(checkout)
    assert {each.what for each in found.values() if each.level is not Level.OK} <= {"tags"}, found
    assert found["REST v1"].text.startswith("410")
    assert "pagination" in found["pod list"].text
    assert "600 per minute" in found["rate limit"].text
    assert "balance $25.00" in found["GraphQL"].text
    requests = [event for event in checkout.cloud.events("request") if event["seq"] > since]
    assert {event["method"] for event in requests if event["path"] != "/graphql"} <= {"GET"}
    assert checkout.cloud.pods() == []


def test_a_day_without_graphql_is_told(checkout: Checkout) -> None:
    checkout.cloud.settings(graphql="gone")
    try:
        found = live(checkout)
    finally:
        checkout.cloud.settings(graphql="on")
    assert found["GraphQL"].level is Level.WARN
    assert "410" in found["GraphQL"].text


# One pod


def test_one_pod_answers_and_is_gone(checkout: Checkout) -> None:
    found = {each.what: each for each in checkout.probe()}
    assert exit_code(found.values()) == 0, found
    assert found["unknown GPU id"].text.startswith("a create says: RunPod says 4")
    assert found["create"].text.startswith("201, ")
    assert "a list that follows a create shows the pod" in found["read your writes"].text
    assert "with its own key: self=200 list=" in found["pod's log and key"].text
    assert "by DELETE with its own key" in found["pod ends itself"].text
    assert "absent from two complete lists" in found["end"].text
    assert found["cost"].text.count("$") == 2
    (bill,) = checkout.cloud.ledger()["pods"]
    assert bill["ended_at"]
    assert bill["name"].startswith("podfleet-dev-doctor-"), "our prefix and our uid: the sweep would find it"


def test_a_pod_whose_key_may_not_end_it_is_ended_by_us(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podfleet.doctor.probe.GONE_BY_ITSELF_S", 8.0)
    checkout.cloud.fault("pods.delete", "status", status=403, detail="access denied")
    found = {each.what: each for each in checkout.probe()}
    assert found["pod ends itself"].text == "not by DELETE on v2: podfleet-probe delete=403"
    assert "1 to end" in found["end"].text
    assert checkout.cloud.live_pods() == []


def test_an_answer_that_is_lost_leaves_no_pod(checkout: Checkout) -> None:
    checkout.cloud.fault("pods.create", "drop", "after", nth=1)
    found = {each.what: each for each in checkout.probe()}
    assert found["create"].level is Level.FAIL
    assert checkout.cloud.live_pods() == []
    assert checkout.cloud.ledger()["pods"], "there was one"


def test_no_boot_is_told_and_ended(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podfleet.doctor.probe.BOOT_S", 2.0)
    checkout.cloud.fault_kind("driver-old")
    found = {each.what: each for each in checkout.probe()}
    assert "unsatisfied condition: cuda" in found["pod's log"].text
    assert checkout.cloud.live_pods() == []


def test_a_spend_limit_holds_for_the_probe_too(checkout: Checkout) -> None:
    checkout.write(maxUsdPerHour=0.01)
    found = {each.what: each for each in checkout.probe()}
    assert "podfleet:maxUsdPerHour" in found["create"].text
    assert checkout.cloud.ledger()["pods"] == []


# The command


def doctor(checkout: Checkout, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "podfleet.cli", "doctor", *words],
        cwd=checkout.workspace.project_dir,
        env={**checkout.outer, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_the_command_tells_in_lines_and_in_json(checkout: Checkout) -> None:
    lines = doctor(checkout, "dev", "--live")
    assert "ok    RunPod key         accepted" in lines.stdout
    assert "ok    REST v1            410" in lines.stdout
    found = json.loads(doctor(checkout, "dev", "--json").stdout)["findings"]
    assert {"engine", "RunPod key", "config"} <= {each["what"] for each in found}
    levels = {each["what"]: each["level"] for each in found}
    assert lines.returncode == int("fail" in levels.values()) == 1, "there is no engine on this PATH"
    assert levels["engine"] == "fail"


def test_nobody_rents_without_being_asked(checkout: Checkout) -> None:
    done = doctor(checkout, "dev", "--live", "--spend")
    assert done.returncode == 2
    assert "this rents one NVIDIA RTX A" in done.stderr
    assert "give --yes" in done.stderr
    assert checkout.cloud.ledger()["pods"] == []
    assert doctor(checkout, "--live").returncode == 2
    assert doctor(checkout, "dev", "--spend").returncode == 2


def test_ctrl_c_ends_the_pod(checkout: Checkout) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "podfleet.cli", "doctor", "dev", "--live", "--spend", "--yes"],
        cwd=checkout.workspace.project_dir,
        env={**checkout.outer, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with closing(process.stdout), closing(process.stderr):  # type: ignore[arg-type]
        try:
            wait_until(checkout.cloud.live_pods, timeout_s=30, what="the probe's pod")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
            process.wait()
    assert checkout.cloud.live_pods() == []
