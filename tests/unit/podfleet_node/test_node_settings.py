"""Settings: variables, file, errors; and the watchdog's own reading of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podfleet_node.errors import SettingsError
from podfleet_node.limits import Limits
from podfleet_node.selfstop import StopRequest
from podfleet_node.settings import NodeSettings, SelfStopRequest
from podfleet_node.supervisor import worker_env

words = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=20)
urls = st.builds(
    SelfStopRequest,
    url=words.filter(bool),
    headers=st.dictionaries(words, words),
    json_body=st.none() | words,
)
commands = st.builds(SelfStopRequest, argv=st.lists(words.filter(lambda word: "${" not in word), min_size=1).map(tuple))
requests = urls | commands
settings_values = st.builds(
    NodeSettings,
    node_name=words,
    engine=words,
    wait_for_start=st.booleans(),
    expires_at_s=st.none() | st.floats(0, 1e10),
    poll_s=st.floats(0.01, 1e4),
    prefetch_jobs=st.integers(0, 9),
    metrics_port=st.integers(0, 65535),
    self_stop=st.lists(requests, max_size=3).map(tuple),
)


@given(settings_values)
def test_settings_survive_the_way_through_the_environment(settings: NodeSettings) -> None:
    assert NodeSettings.from_env(settings.to_env()) == settings


def test_defaults_need_no_variables() -> None:
    assert NodeSettings().to_env() == {}
    assert NodeSettings.from_env({"PATH": "/bin", "PODFLEET_TAILNET_KEY": "x", "PODFLEET_EXPIRES_AT_S": ""}) == (
        NodeSettings()
    )


def test_the_file_overrides_the_environment() -> None:
    merged = NodeSettings.merged({"PODFLEET_ENGINE": "a", "PODFLEET_SLOT": "s"}, {"engine": "b", "poll_s": 1})
    assert (merged.engine, merged.slot, merged.poll_s) == ("b", "s", 1)


def test_all_errors_come_at_once_and_repeat_no_value() -> None:
    with pytest.raises(SettingsError) as caught:
        NodeSettings.merged({"PODFLEET_POLL_S": "canary1", "PODFLEET_METRICS_PORT": "70000"}, {"enginee": "canary2"})
    text = str(caught.value)
    assert all(name in text for name in ("poll_s", "metrics_port", "enginee"))
    assert "canary" not in text


def test_a_self_stop_that_is_no_json_says_so() -> None:
    with pytest.raises(SettingsError, match="self_stop: not JSON"):
        NodeSettings.from_env({"PODFLEET_SELF_STOP": "{canary"})


def test_the_watchdog_has_the_same_defaults() -> None:
    limits, settings = Limits(), NodeSettings()
    for name in ("wait_for_start", "bootstrap_deadline_s", "expires_at_s", "max_runtime_s", "max_consecutive_failures"):
        assert getattr(limits, name) == getattr(settings, name), name
    assert limits.drain_deadline_s == settings.drain_deadline_s
    assert Limits.read({}, {}) == limits


@given(settings_values)
def test_the_watchdog_reads_what_the_settings_say(settings: NodeSettings) -> None:
    limits = Limits.read(settings.to_env(), {})
    assert limits.wait_for_start == settings.wait_for_start
    assert limits.expires_at_s == (settings.expires_at_s or None)
    assert [(r.url, r.argv) for r in limits.self_stop] == [(r.url, r.argv) for r in settings.self_stop]


@pytest.mark.parametrize("nonsense", ["abc", "-1", "nan", "inf", ""])
def test_nonsense_does_not_disarm_the_watchdog(nonsense: str) -> None:
    environ = {"PODFLEET_MAX_RUNTIME_S": nonsense, "PODFLEET_SELF_STOP": nonsense}
    assert Limits.read(environ, {}).max_runtime_s == Limits().max_runtime_s


def test_the_file_gives_the_watchdog_its_limits_too() -> None:
    stop = [{"method": "post", "url": "http://x", "json_body": {"a": 1}}]
    limits = Limits.read({"PODFLEET_MAX_RUNTIME_S": "9"}, {"max_runtime_s": 5, "self_stop": stop})
    assert limits.max_runtime_s == 5
    assert limits.self_stop == (StopRequest(url="http://x", method="POST", json_body={"a": 1}),)
    assert Limits.read({"PODFLEET_SELF_STOP": json.dumps(stop)}, {}).self_stop == limits.self_stop


@pytest.mark.parametrize(
    "request_", [{}, {"url": "http://x", "argv": ["true"]}, {"argv": ["end", "--key", "${RUNPOD_API_KEY}"]}]
)
def test_a_request_is_one_way_and_carries_no_key_where_others_can_read_it(request_: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="self_stop"):
        NodeSettings.from_env({"PODFLEET_SELF_STOP": json.dumps([request_])})


def test_a_lifetime_of_nothing_is_none_for_the_watchdog_too() -> None:
    limits = Limits.read(NodeSettings(max_runtime_s=0).to_env(), {})
    assert (limits.max_runtime_s, limits.expires_at_s) == (0, None)


def test_the_worker_sees_no_secret() -> None:
    pod = {
        "PATH": "/bin",
        "PODFLEET_ENGINE": "x",
        "PODFLEET_SELF_STOP": "s",
        "PODFLEET_TAILNET_KEY": "s",
        "RUNPOD_API_KEY": "s",
        "RUNPOD_POD_ID": "p",
        "JUPYTER_PASSWORD": "s",
        "NVIDIA_VISIBLE_DEVICES": "all",
    }
    assert worker_env(pod) == {"PATH": "/bin", "PODFLEET_ENGINE": "x", "NVIDIA_VISIBLE_DEVICES": "all"}
