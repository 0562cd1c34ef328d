"""What the program asks the engine for, from a stack's config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]  # answers the recorder of conftest.py
POD, STEP = "runpod:Pod", "remote:Command"


def test_two_slots_between_guard_and_sweep(run: Run) -> None:
    seen = run(pods="2")
    assert seen.names(POD) == ["slot-01-pod", "slot-02-pod"]
    assert seen.names("runpod:PodReachable") == ["slot-01-reachable", "slot-02-reachable"]
    wanted = seen.inputs("guard")["wanted"]
    assert [name.rsplit("-", 1)[0] for name in wanted] == ["podfleet-local-slot-01", "podfleet-local-slot-02"]
    assert seen.inputs("sweep")["wanted"] == wanted
    assert seen.inputs("sweep")["pods"] == ["slot-01-pod-id", "slot-02-pod-id"]
    assert seen.inputs("slot-01-pod")["name"] == wanted[0]


def test_no_pods_is_a_written_empty_list(run: Run) -> None:
    seen = run(pods="0")
    assert seen.inputs("guard")["wanted"] == []
    assert seen.names(POD) == []


def test_the_steps_of_a_pod_use_the_pinned_host_key_and_the_pods_id_as_trigger(run: Run) -> None:
    seen = run(pods="1")
    assert seen.names(STEP) == ["slot-01-configure", "slot-01-start", "slot-01-verify"]
    start = seen.inputs("slot-01-start")
    connection = start["connection"]["value"]  # a secret as a whole
    assert connection["hostKey"] == "ssh-ed25519 HOST"
    assert start["triggers"] == ["slot-01-pod-id"]
    assert "delete" not in start


def test_mode_none_has_no_inbound_ssh(run: Run) -> None:
    seen = run(pods="1", bootstrap="none")
    assert seen.names(STEP) == []
    assert seen.names("runpod:PodReachable") == []
    assert seen.inputs("slot-01-pod")["ports"] == []


def test_the_tailnet_key_is_ephemeral_tagged_and_expires(run: Run) -> None:
    seen = run(pods="1", tailnet="-", acl="own")
    key = seen.inputs("tailnet-key")
    assert (key["ephemeral"], key["tags"], key["expiry"]) == (True, ["tag:runpod"], 86400)
    assert seen.names("index/acl:Acl") == ["acl"]
    env = seen.inputs("slot-01-pod")["env"]
    assert env["PODFLEET_TAILNET_KEY"] == "{{ RUNPOD_SECRET_" + seen.inputs("tailnet-secret")["name"] + " }}"


def test_without_a_tailnet_nothing_of_it_is_made(run: Run) -> None:
    seen = run(pods="1")
    assert not [typ for typ, _, _ in seen.seen if "tailscale" in typ]
    assert "PODFLEET_TAILNET_KEY" not in seen.inputs("slot-01-pod")["env"]


def test_no_pod_input_holds_the_private_key(run: Run) -> None:
    seen = run(pods="1")
    assert "CANARY" not in str(seen.inputs("slot-01-pod"))


def test_bad_config_stops_the_program_before_any_resource(run: Run) -> None:
    seen = run(pods="many", cloud="BOTH")
    assert seen.exit_code == 32  # tells the engine: failed, and the reasons are shown already
    assert seen.seen == []
