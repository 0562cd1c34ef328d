"""The doctor's judgement: what an answer means, which config bites, and what the sum of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from podfleet.config import PodfleetConfig
from podfleet.doctor.findings import Finding, Level, as_json, exit_code, fail, last_line, ok, warn
from podfleet.doctor.live import ask_live, v1_url
from podfleet.doctor.machine import engine_finding, launcher_finding
from podfleet.doctor.probe import cheapest
from podfleet.doctor.raw import Answer, Raw
from podfleet.doctor.stack import skew_finding
from podfleet.doctor.traps import check_config
from podfleet.providers.runpod.wire import GpuOffer

REAL = {
    "uid": "prod-00000001",
    "image": "you/node:1.0",
    "queueUrl": "http://100.64.0.1:8000",
    "tailnet": "-",
    "join": True,
    "bootstrap": "none",
}


def test_only_what_has_to_be_mended_fails() -> None:
    found = [ok("a", "x"), warn("b", "y", "know it"), fail("c", "z", "mend it")]
    assert (exit_code(found), exit_code(found[:2])) == (1, 0)
    assert last_line(found) == "1 to mend, 1 to know, 1 ok"
    assert last_line(found[:1]) == "nothing to mend: 1 ok"
    assert as_json(found)["ok"] is False
    assert found[2].line().splitlines()[1].strip() == "→ mend it"


# Config


def traps(**changes: object) -> list[str]:
    return [each.text for each in check_config(PodfleetConfig.model_validate({**REAL, **changes}))]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"maxRuntimeMinutes": 0}, "maxRuntimeMinutes"),
        ({"maxUsdPerHour": 0, "maxUsdPerDay": 0}, "maxUsdPerHour"),
        ({"keepAlive": True}, "keepAlive"),
        ({"stopOnEmptyQueue": False, "idleTimeoutMinutes": 0}, "idleTimeoutMinutes"),
        ({"queueUrl": "http://127.0.0.1:8792"}, "queueUrl"),
        ({"join": False}, "queueUrl"),
        ({"queueUrl": "http://box.tail1.ts.net", "join": False}, "queueUrl"),
        ({"acl": "own"}, "acl"),
        ({"runpodUrl": "http://api.example.com"}, "runpodUrl"),
        ({"image": "you/node"}, "image"),
        ({"image": "you/node:latest"}, "image"),
        ({"imageGb": 16}, "imageGb"),
        ({"minCudaVersion": ""}, "minCudaVersion"),
    ],
)
def test_each_trap_names_its_key(change: dict[str, object], key: str) -> None:
    (text,) = traps(**change)
    assert text.startswith(f"podfleet:{key} ")


@pytest.mark.parametrize("image", ["you/node:1.0", "host:5000/you/node:1.0", f"you/node@sha256:{'0' * 64}"])
def test_a_sound_config_has_none(image: str) -> None:
    assert traps(image=image) == ["no traps"]


def test_a_registry_with_a_port_and_no_tag_is_not_pinned() -> None:
    assert "is not pinned" in traps(image="host:5000/you/node")[0]


# This machine


@pytest.mark.parametrize(
    ("shown", "level"),
    [
        ("v3.259.0", Level.OK),
        ("v3.300.1-dev", Level.OK),
        ("v3.258.9", Level.FAIL),
        ("v4.0.0", Level.FAIL),
        ("", Level.FAIL),
    ],
)
def test_engines_from_3_259_on(shown: str, level: Level) -> None:
    assert engine_finding(shown, "/bin/pulumi").level is level


def test_the_stock_launcher_is_slower_and_there_is_no_third_one() -> None:
    levels = [launcher_finding(chosen).level for chosen in (None, "own", "stock", "mine")]
    assert levels == [Level.OK, Level.OK, Level.WARN, Level.FAIL]


@pytest.mark.parametrize(
    ("apart_s", "level"), [(0, Level.OK), (-20, Level.OK), (60, Level.WARN), (-400, Level.FAIL), (4000, Level.FAIL)]
)
def test_a_clock_that_is_wrong_makes_lifetimes_wrong(apart_s: int, level: Level) -> None:
    there_s = 1_800_000_000.0
    date = format_datetime(datetime.fromtimestamp(there_s, UTC), usegmt=True)
    finding = skew_finding(date, now_s=there_s + apart_s)
    assert finding.level is level
    if level is not Level.OK:
        assert ("ahead of" if apart_s > 0 else "behind") in finding.text
    assert skew_finding("", now_s=there_s).level is Level.WARN


# Live


@dataclass
class Api:
    """Answers by path; what is not named is 404."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def get(self, path: str, *, params: Mapping[str, str] | None = None, with_key: bool = True) -> Answer:
        self.asked.append(path)
        return self.answers.get(path, Answer(404, "resource not found"))

    def post(self, path: str, json: Mapping[str, Any]) -> Answer:
        self.asked.append(path)
        return self.answers.get(path if "__type" not in json["query"] else "schema", Answer(404, "not found"))


def live(**answers: Answer) -> dict[str, Finding]:
    paths = {"pods": "/v2/pods", "v1": "/v1/pods", "graphql": "/graphql", "secrets": "/v2/account/secrets"}
    api = Api({paths.get(name, name): answer for name, answer in answers.items()})
    return {each.what: each for each in ask_live(api, api)}


@pytest.mark.parametrize(
    ("body", "level", "said"),
    [
        ({"pods": [{}] * 3}, Level.OK, "3 pods, no `pagination`"),
        ({"pods": [], "pagination": {"hasNextPage": False, "nextCursor": ""}}, Level.OK, "on one page"),
        ({"pods": [{}] * 50, "pagination": {"hasNextPage": True, "nextCursor": "x"}}, Level.OK, "in pages of 50"),
        ({"pods": [], "pagination": {"next": "x"}}, Level.WARN, "another shape: ['next']"),
        ({"items": [{"env": {"SECRET": "x"}}]}, Level.FAIL, "200 with ['items']"),
    ],
)
def test_the_shape_of_the_list(body: dict[str, Any], level: Level, said: str) -> None:
    finding = live(pods=Answer(200, str(body), {}, body))["pod list"]
    assert finding.level is level
    assert said in finding.text


def test_the_rate_limit_is_read_from_the_headers() -> None:
    headers = {"ratelimit": '"minute";r=59;t=12', "ratelimit-policy": '"minute";q=60;w=60'}
    body = {"pods": []}
    assert live(pods=Answer(200, "", headers, body))["rate limit"].text == "60 per minute; 59 left now"
    few = {**headers, "ratelimit-policy": '"minute";q=20;w=60'}
    assert live(pods=Answer(200, "", few, body))["rate limit"].level is Level.WARN
    assert live(pods=Answer(200, "", {}, body))["rate limit"].level is Level.WARN


def test_what_a_key_may_not_read_is_to_know() -> None:
    found = live(secrets=Answer(403, "access denied"))
    assert found["secrets"].level is Level.WARN
    assert "give the key that right" in found["secrets"].do


def test_spot_is_asked_of_the_schema_only() -> None:
    alive = Answer(200, "", {}, {"data": {"myself": {"clientBalance": 7.5, "currentSpendPerHr": None}}})
    gone = Answer(200, "", {}, {"data": {"__type": {"fields": [{"name": "podTerminate"}]}}})
    there = Answer(200, "", {}, {"data": {"__type": {"fields": [{"name": "podRentInterruptable"}]}}})
    assert live(graphql=alive, schema=gone)["spot"].text.endswith("is gone, as expected")
    assert live(graphql=alive, schema=there)["spot"].level is Level.WARN
    assert live(graphql=alive, schema=Answer(400, "introspection is off"))["spot"].level is Level.OK
    assert live(graphql=alive, schema=gone)["GraphQL"].text == "alive; balance $7.50, the account spends $0.00/h"
    assert live(graphql=Answer(410, "retired"))["GraphQL"].level is Level.WARN


def test_v1_was_somewhere_else() -> None:
    assert v1_url("https://api.runpod.io/") == "https://rest.runpod.io"
    assert v1_url("http://127.0.0.1:8790") == "http://127.0.0.1:8790"
    assert live(v1=Answer(410, "gone"))["REST v1"].text == "410: retired, as expected"


# Plain requests


def test_the_key_goes_only_where_it_is_meant_and_is_in_no_text() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(500, text="you sent Bearer rpa_secret")

    with Raw("http://127.0.0.1:9", "rpa_secret", transport=httpx.MockTransport(answer)) as raw:
        with_key, without = raw.get("/v2/pods"), raw.get("/v2/openapi.json", with_key=False)
    assert seen == ["Bearer rpa_secret", None]
    assert str(with_key) == str(without) == "500 you sent Bearer ***"


def test_no_answer_is_an_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with Raw("http://127.0.0.1:9", transport=httpx.MockTransport(refuse)) as raw:
        assert str(raw.get("/v2/pods")) == "no answer (refused)"


def test_the_cheapest_that_is_free_comes_first() -> None:
    offers = [
        GpuOffer("A", "", 16, "SECURE", 0.3, "LOW"),
        GpuOffer("B", "", 16, "COMMUNITY", 0.2, "HIGH"),
        GpuOffer("C", "", 16, "SECURE", 0.1, "NONE"),
        GpuOffer("D", "", 16, "SECURE", 0.0, "HIGH"),
    ]
    assert [each.gpu for each in cheapest(offers)] == ["B", "A"]
    assert str(cheapest(offers)[0]) == "one B (community) at $0.20/h, for about a minute: about $0.003"
