"""The description of the wire judges localcloud: generated requests, good and bad, against the running daemon."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import yaml
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import localcloud
from localcloud import facts as facts_module
from localcloud.cloud import Cloud
from localcloud.events import EventLog
from localcloud.runpod_api import routers_of
from localcloud.testing import RunningCloud, running

SPEC = Path(localcloud.__file__).parent / "spec" / "runpod-v2.yaml"
A4000 = "NVIDIA RTX A4000"
METHODS = ("get", "post", "put", "patch", "delete")
EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Good data can be 422: a cursor is one that the server gave, a secret's name must not begin with RUNPOD.
NOT_IN_A_SCHEMA = {"listPods", "listNetworkVolumes", "createSecret"}
RULES = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SPEC.read_text("utf-8"))
    return loaded


def closed(node: Any) -> Any:
    """The same, with objects that have no other properties: what we do not describe, we do not send."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def operations() -> dict[str, tuple[str, str]]:
    """operationId -> (method, path)."""
    paths = document()["paths"].items()
    return {item[way]["operationId"]: (way, path) for path, item in paths for way in METHODS if way in item}


GENERATED = [name for name in operations() if name != "getPodLogs"]  # a stream that does not end has tests of its own


@dataclass
class World:
    """A cloud whose pods stay in PROVISIONING, and a new record for whoever needs one."""

    cloud: RunningCloud
    api: httpx.Client
    session: requests.Session = field(default_factory=requests.Session)

    def fresh(self, path: str) -> str:
        """The id of a record that a request to this path can be about."""
        kind = path.removeprefix("/v2/").split("/{id}")[0]
        makers: dict[str, Callable[[], str]] = {
            "pods": lambda: self._new(kind, {"name": "p", "image": "i", "gpu": {"id": A4000}}),
            "registries": lambda: self._new(kind, {"name": "r", "username": "u", "password": "p"}),
            "network-volumes": lambda: self._new(kind, {"name": "v", "size": 10, "dataCenter": "EU-RO-1"}),
            "templates": lambda: self._new(kind, {"name": "t", "image": "i"}),
            "account/secrets": self._secret,
            "catalog/gpus": lambda: A4000,
            "catalog/cpus": lambda: "cpu3c",
            "catalog/datacenters": lambda: "EU-RO-1",
        }
        return makers[kind]()

    def _new(self, kind: str, body: dict[str, Any]) -> str:
        return str(self.api.post(f"/v2/{kind}", json=body).raise_for_status().json()["id"])

    def _secret(self) -> str:
        for secret in self.api.get("/v2/account/secrets", params={"name": "s"}).json()["secrets"]:
            self.api.delete(f"/v2/account/secrets/{secret['id']}")
        return self._new("account/secrets", {"name": "s", "value": "v"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    plenty = 10**6
    with (
        running(
            tmp_path_factory.mktemp("cloud"),
            boot_s=3600,
            page_size=3,
            balance_usd=1e9,
            stock_default=plenty,
            rate_limit_per_minute=plenty,
            rate_limit_per_hour=plenty,
            rate_limit_per_day=plenty,
        ) as cloud,
        cloud.client() as api,
    ):
        yield World(cloud, api)


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(closed(document()))


def can_be_wrong(operation: Any) -> bool:
    """Whether a request can break the schema: a body, or a query parameter that is not just any text."""
    parameters = [each.definition.get("schema", {}) for each in operation.query]
    return bool(operation.body) or any(set(each) - {"type"} or each.get("type") != "string" for each in parameters)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("name", GENERATED)
def test_what_is_sent_and_answered_is_as_described(name: str, mode: GenerationMode, world: World, schema: Any) -> None:
    method, path = operations()[name]
    operation = schema[path][method]
    about_one = "{id}" in path
    if mode.is_negative and not can_be_wrong(operation):
        return
    known = {each.name for each in operation.query}

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode, path_parameters={"id": "a"} if about_one else None))
    def judge(case: Case) -> None:
        if about_one:
            case.path_parameters = {"id": world.fresh(path)}
        headers = {"Authorization": f"Bearer {world.cloud.api_key}"}
        response = case.call(base_url=world.cloud.runpod_url, session=world.session, headers=headers, timeout=10)
        only_known = set(case.query or {}) <= known  # others are ignored, as the service does it
        checks = [*CHECKS, negative_data_rejection] if case.body is not None or only_known else CHECKS
        case.validate_response(response, checks=checks)
        if mode.is_positive and name not in NOT_IN_A_SCHEMA:
            assert response.status_code != 422, response.text

    judge()


def test_the_description_is_served_to_everybody_with_the_server_s_own_address(world: World) -> None:
    with httpx.Client(base_url=world.cloud.runpod_url, trust_env=False) as nobody:
        served = nobody.get("/v2/openapi.json").raise_for_status().json()
    assert served.pop("servers") == [{"url": world.cloud.runpod_url}]
    written = document()
    del written["servers"]
    assert served == written


@pytest.mark.parametrize(("method", "path"), sorted(set(operations().values())))
def test_without_a_key_every_operation_is_a_documented_401(method: str, path: str, world: World) -> None:
    with httpx.Client(base_url=world.cloud.runpod_url, trust_env=False) as nobody:
        answer = nobody.request(method, path.format(id="x"))
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json() == {"title": "Unauthorized", "status": 401, "detail": "missing bearer token"}


@pytest.mark.parametrize("path", sorted({path for _, path in operations().values()}))
def test_a_method_that_a_path_does_not_have_is_405_and_those_it_has_are_named(path: str, world: World) -> None:
    has = sorted(method.upper() for method, its_path in operations().values() if its_path == path)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - set(has):
        answer = world.api.request(method, path.format(id="x"), json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, ", ".join(has)), method


# -- the code says the same -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], APIRoute]:
    """(method, path) -> the route that serves it."""
    cloud = Cloud(tmp_path_factory.mktemp("empty"), facts_module.load(), EventLog())
    found = [route for router in routers_of(cloud) for route in router.routes if isinstance(route, APIRoute)]
    return {
        (method.lower(), "/".join("{id}" if part.startswith("{") else part for part in route.path.split("/"))): route
        for route in found
        for method in route.methods
        if route.path.startswith("/v2/") and route.path != "/v2/openapi.json"
    }


def test_every_route_is_described_and_every_description_served(routes: Mapping[tuple[str, str], APIRoute]) -> None:
    assert set(routes) == set(operations().values())


def test_the_bodies_that_the_code_takes_are_the_bodies_described(routes: Mapping[tuple[str, str], APIRoute]) -> None:
    written = document()
    seen = 0
    for (method, path), route in routes.items():
        body = written["paths"][path][method].get("requestBody")
        assert (route.body_field is None) == (body is None), path
        if body is None or route.body_field is None:
            continue
        model = route.body_field.field_info.annotation
        assert model is not None
        made = model.model_json_schema()
        described = body["content"]["application/json"]["schema"]
        assert canonical(made, made) == canonical(described, written), f"{method} {path}"
        seen += 1
    assert seen > 10


def canonical(node: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """What a body's schema demands, without words and without the ways of writing it."""
    if "$ref" in node:
        target: Any = whole
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return canonical(target, whole)
    some = [each for each in node.get("anyOf", ()) if each != {"type": "null"} and "required" not in each]
    if len(some) == 1:
        return canonical(some[0], whole)
    kinds = (
        [node["type"]]
        if isinstance(node.get("type"), str)
        else [kind for kind in node.get("type", ()) if kind != "null"]
    )
    found: dict[str, Any] = {"type": kinds, **{rule: node[rule] for rule in RULES if rule in node}}
    words = node.get("enum") or ([node["const"]] if "const" in node else None)
    if words:
        found["enum"] = words
    if "items" in node:
        found["items"] = canonical(node["items"], whole)
    if "properties" in node:
        found["properties"] = {key: canonical(value, whole) for key, value in node["properties"].items()}
        found["required"] = sorted(node.get("required", ()))
        found["closed"] = node.get("additionalProperties") is False
    elif isinstance(node.get("additionalProperties"), dict):
        found["values"] = canonical(node["additionalProperties"], whole)
    return found
