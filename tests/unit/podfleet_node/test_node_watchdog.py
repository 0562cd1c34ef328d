"""The fuse: when PID 1 ends a pod whatever the worker says; and how it asks for that end."""

import json
from pathlib import Path

import pytest

from podfleet_node import selfstop
from podfleet_node.lifecycle import StopReason
from podfleet_node.limits import Limits
from podfleet_node.selfstop import StopRequest, Unfilled, fill
from podfleet_node.watchdog import WORKER_SILENCE_S, Pulse, Verdict, restart_wait_s, verdict


def _pulse(**fields: object) -> Pulse:
    return Pulse(**{"now_s": 1e9, "monotonic_s": 100.0, "booted_at_s": 0.0, "started": True, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "pulse", "expected"),
    [
        (Limits(), _pulse(), None),
        (Limits(max_runtime_s=100), _pulse(), StopReason.LIFETIME),
        (Limits(max_runtime_s=101), _pulse(), None),
        (Limits(max_runtime_s=0), _pulse(monotonic_s=1e9), None),
        (Limits(expires_at_s=1e9), _pulse(), StopReason.LIFETIME),
        (Limits(expires_at_s=1e9 + 1), _pulse(), None),
        (Limits(expires_at_s=1e9 - 5, max_runtime_s=0), _pulse(), StopReason.LIFETIME),
        (Limits(wait_for_start=True, bootstrap_deadline_s=100), _pulse(started=False), StopReason.BOOTSTRAP_DEADLINE),
        (Limits(wait_for_start=True, bootstrap_deadline_s=100), _pulse(started=True), None),
        (Limits(wait_for_start=True, bootstrap_deadline_s=0), _pulse(started=False), None),
        (Limits(), _pulse(crashes_in_a_row=2), None),
        (Limits(), _pulse(crashes_in_a_row=3), StopReason.WORKER_CRASHED),
        (Limits(max_consecutive_failures=0), _pulse(crashes_in_a_row=99), None),
    ],
)
def test_the_end(limits: Limits, pulse: Pulse, expected: StopReason | None) -> None:
    done, reason = verdict(limits, pulse)
    assert reason is expected
    assert (done is Verdict.END) == (expected is not None)


def test_a_silent_worker_is_killed_and_an_absent_one_is_not() -> None:
    silent = _pulse(monotonic_s=1000.0, worker_heard_at_s=1000.0 - WORKER_SILENCE_S)
    assert verdict(Limits(), silent) == (Verdict.KILL_WORKER, None)
    assert verdict(Limits(), _pulse(monotonic_s=1000.0, worker_heard_at_s=999.0)) == (Verdict.FINE, None)
    assert verdict(Limits(), _pulse(monotonic_s=1000.0)) == (Verdict.FINE, None)


def test_the_back_off_between_workers_is_bounded() -> None:
    assert [restart_wait_s(n) for n in (1, 2, 3, 4, 5, 6, 60)] == [1, 2, 4, 8, 16, 30, 30]


def test_placeholders_are_filled_and_a_missing_one_is_named() -> None:
    assert fill("https://x/${POD}/${A_1}$", {"POD": "p", "A_1": "q"}) == "https://x/p/q$"
    with pytest.raises(Unfilled, match="KEY"):
        fill("Bearer ${KEY}", {})


def test_it_asks_with_back_off_for_as_long_as_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[bool] = []
    answers = [False] * 7 + [True, True, False]

    def send_round(_requests: object, _environ: object, *, all_of_them: bool) -> bool:
        rounds.append(all_of_them)
        return answers[len(rounds) - 1]

    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == len(answers)

    monkeypatch.setattr(selfstop, "send_round", send_round)
    selfstop.keep_asking((StopRequest(url="http://x"),), {}, wait=wait)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert rounds == [False] * 8 + [True, True], "an accepted request that did not end us is not trusted again"


def test_a_request_without_its_variable_is_left_out_and_nothing_secret_is_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    request = StopRequest(url="http://127.0.0.1:9/canary", headers={"Authorization": "Bearer ${RUNPOD_API_KEY}"})
    assert selfstop.send_round([request], {}, all_of_them=False) is False
    assert selfstop.send_round([request], {"RUNPOD_API_KEY": "canary\nsecret"}, all_of_them=False) is False
    log = capfd.readouterr().err
    assert '"variable": "RUNPOD_API_KEY"' in log
    assert "canary" not in log


def test_a_command_gets_its_key_by_the_environment_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    end = tmp_path / "endpod"
    end.write_text(
        f'#!/bin/sh\necho "$@ $RUNPOD_API_KEY ${{PODFLEET_TAILNET_KEY-none}}" | tee {tmp_path}/said; exit $CODE\n'
    )
    end.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin", "RUNPOD_API_KEY": "canary", "PODFLEET_TAILNET_KEY": "canary2"}
    request = StopRequest(argv=("endpod", "remove", "${RUNPOD_POD_ID}", "a b; exit 0"))
    for code, accepted in (("3", False), ("0", True)):
        pod = {**environ, "CODE": code, "RUNPOD_POD_ID": "p1"}
        assert selfstop.send_round([request], pod, all_of_them=False) is accepted
    assert (tmp_path / "said").read_text() == "remove p1 a b; exit 0 canary none\n"
    log = capfd.readouterr()
    assert '"exit_status": 3' in log.err
    assert "canary" not in log.err + log.out


def test_what_is_wrong_with_a_command_is_said_and_is_no_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selfstop, "TIMEOUT_S", 0.2)
    environ = {"PATH": "/bin:/usr/bin", "RUNPOD_API_KEY": "canary"}
    for argv, said in (
        (("no-such-command", "x"), "no such command in this image"),
        (("sleep", "600"), "TimeoutExpired"),
        (("echo", "${RUNPOD_API_KEY}"), '"variable": "RUNPOD_API_KEY"'),
        (("echo", "${MISSING}"), '"variable": "MISSING"'),
    ):
        assert selfstop.send_round([StopRequest(argv=argv)], environ, all_of_them=False) is False
        log = capfd.readouterr().err
        assert said in log
        assert "canary" not in log


def test_every_round_says_that_it_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    waits = iter([False, False, True])
    selfstop.keep_asking((StopRequest(argv=("false",)),), {"PATH": "/bin:/usr/bin"}, wait=lambda _s: next(waits))
    alive = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "selfstop.alive" in line]
    assert [(each["round"], each["accepted"], each["next_round_in_s"]) for each in alive] == [
        (1, False, 2.0),
        (2, False, 4.0),
        (3, False, 8.0),
    ]
