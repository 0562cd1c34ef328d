"""Small rules as tables: faults, rate limit, command lines, HuJSON, operations, the catalogue's query."""

import asyncio
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from localcloud import facts as facts_module
from localcloud.account import Account
from localcloud.catalog_wire import availability_query
from localcloud.environment import MissingSecret, base_env, command_line, pod_env
from localcloud.errors import FactsError, Problem
from localcloud.events import EventLog
from localcloud.faultkinds import KINDS
from localcloud.faults import Fault, FaultTable, wait_out
from localcloud.hujson import standardized
from localcloud.model import GpuWish, Pod, PodRequest
from localcloud.operations import operation
from localcloud.podlog import PodLog
from localcloud.ratelimit import RateLimit
from localcloud.runpod_wire import CreatePod

FACTS = facts_module.load()
A4000 = "NVIDIA RTX A4000"
L4 = "NVIDIA L4"


# -- facts ------------------------------------------------------------------------------------------------------------
def test_the_packaged_facts_are_valid_and_start_the_image_s_command() -> None:
    assert FACTS.pod_command == ("podfleet-node", "run")
    assert len({gpu.id for gpu in FACTS.gpus}) == len(FACTS.gpus)


def test_every_group_of_claims_names_its_source_and_when_it_was_seen_live() -> None:
    groups = facts_module.PACKAGED.read_text("utf-8").split("\n# -- ")[1:]
    silent = [group.split()[0] for group in groups if "\n# source: " not in group or "\n# verified live: " not in group]
    assert silent == ["state"]


def test_a_facts_file_replaces_keys_and_merges_stock(tmp_path: Path) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text(f"boot_s: 9\nstock: {{{L4}: 1}}\n", "utf-8")
    loaded = facts_module.load(file)
    assert loaded.boot_s == 9
    assert loaded.stock == {**FACTS.stock, L4: 1}
    assert loaded.stock_default == FACTS.stock_default


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("boot: 9\n", "boot: Extra inputs"),
        ("boot_s: soon\n", "boot_s: Input should be a valid number"),
        ("- 1\n", "must be a mapping"),
        ("a: [\n", "facts.yaml"),
    ],
)
def test_a_wrong_facts_file_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(FactsError) as caught:
        facts_module.load(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_pattern_chooses_the_command() -> None:
    some = FACTS.model_copy(update={"image_commands": {"busybox*": ("sleep", "1")}})
    assert some.command_of("busybox:1") == ("sleep", "1")
    assert some.command_of("other") == FACTS.pod_command


# -- faults -----------------------------------------------------------------------------------------------------------
def test_a_fault_hits_from_its_nth_match_so_many_times_and_each_hit_is_an_event() -> None:
    events = EventLog()
    table = FaultTable(events)
    table.add(Fault("f1", "pods.create", "before", "status", nth=2, times=2, name_contains="slot-01"))
    names = ["x-slot-01", "x-slot-02", "x-slot-01", "x-slot-01", "x-slot-01"]
    hits = [table.hit("pods.create", "before", name) is not None for name in names]
    assert hits == [False, False, True, True, False]
    assert table.hit("pods.create", "after", "x-slot-01") is None
    assert table.hit("pods.list", "before", None) is None
    assert [event["nth"] for event in events.since(0)] == [2, 3]
    assert events.since(0)[0]["kind"] == "fault.hit"


def test_every_matching_fault_counts_and_the_first_due_decides() -> None:
    table = FaultTable(EventLog())
    table.add(Fault("f1", "pods.list", "before", "drop"))
    table.add(Fault("f2", "pods.list", "before", "status", nth=2))
    first, second = table.hit("pods.list", "before", None), table.hit("pods.list", "before", None)
    assert (first and first.id, second and second.id) == ("f1", "f2")


def test_the_page_names_every_kind_of_fault_and_the_facts_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "localcloud.md").read_text("utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []
    assert set(FACTS.fault_defaults) <= set(KINDS)


def test_the_same_seed_hits_the_same_matches() -> None:
    def hits(seed: int) -> list[bool]:
        table = FaultTable(EventLog())
        table.add(Fault("f1", "pods.list", "before", "status", times=0, nth=3, probability=0.5, seed=seed))
        return [table.hit("pods.list", "before", None) is not None for _ in range(40)]

    assert hits(1) == hits(1) != hits(2)
    assert hits(1)[:2] == [False, False]
    assert 8 < sum(hits(1)) < 30


@pytest.mark.parametrize(
    ("order", "op", "hit"),
    [
        ("*", "pods.list", True),
        ("*", "graphql.myself", True),
        ("*", "pods.boot", False),
        ("*", "pods.run", False),
        ("graphql", "graphql.myself", True),
        ("graphql.pod", "graphql.podStop", False),
        ("pods.list", "pods.create", False),
    ],
)
def test_an_order_about_any_request_or_all_of_graphql_is_about_no_boot(order: str, op: str, hit: bool) -> None:
    assert Fault("f1", order, "before", "drop").matches(op, "before", None) == hit


def test_a_hold_ends_when_its_fault_is_removed() -> None:
    async def scenario() -> list[int]:
        table = FaultTable(EventLog())
        fault = Fault("f1", "pods.list", "before", "hold")
        table.add(fault)
        held = asyncio.ensure_future(wait_out(fault))
        await asyncio.sleep(0)
        seen = [fault.holding]
        table.clear()
        await asyncio.wait_for(held, 1)
        return [*seen, fault.holding]

    assert asyncio.run(scenario()) == [1, 0]


def test_events_are_in_the_file_before_the_next_one_is_made(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.add("one", n=1)
    log.add("two", at_s=5.0)
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    assert rows == log.since(0)
    assert rows[1]["ts"] == 5.0
    assert log.since(1) == rows[1:]
    log.clear()
    assert log.add("three")["seq"] == 3
    assert [event["kind"] for event in log.since(2)] == ["three"]
    log.close()


# -- rate limit -------------------------------------------------------------------------------------------------------
def test_a_used_up_minute_says_how_long_to_wait_and_then_opens_again() -> None:
    some = FACTS.model_copy(update={"rate_limit_per_minute": 2})
    limit = RateLimit()
    first = limit.count(some, 100.0)
    assert first.headers["RateLimit"].startswith('"minute";r=1;t=60, "hour";r=')
    assert first.headers["RateLimit-Policy"].startswith('"minute";q=2;w=60, ')
    assert limit.count(some, 110.0).retry_after_s is None
    assert limit.count(some, 130.5).retry_after_s == 30
    assert limit.count(some, 160.0).retry_after_s is None


def request(**more: object) -> PodRequest:
    fields = {"name": "p", "image": "i", "gpu": GpuWish(A4000), **more}
    return PodRequest(**fields)  # type: ignore[arg-type]


# -- containers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, ["node", "run"]),
        ({"args": "serve --port '1 2'"}, ["node", "serve", "--port", "1 2"]),
        ({"args": '{"entrypoint":["sh"],"cmd":["-c","x"]}'}, ["sh", "-c", "x"]),
        ({"args": '{"cmd":["x"]}'}, ["node", "x"]),
        ({"args": ""}, ["node"]),
        ({"cmd": ("x",)}, ["node", "x"]),
        ({"entrypoint": ("sh",)}, ["sh"]),
        ({"entrypoint": ("sh",), "cmd": ("x",)}, ["sh", "x"]),
    ],
)
def test_entrypoint_and_cmd_go_together_as_docker_does_it(overrides: dict[str, object], expected: list[str]) -> None:
    assert command_line(request(**overrides), ("node", "run")) == expected


def pod(**more: object) -> Pod:
    return Pod("abc", 1, request(**more), 0.25, "EU-RO-1", "12.8", 0.0, Path("/r"), "rpa_pod", tcp_ports={22: 41000})


def test_a_pod_sees_the_image_s_the_service_s_and_its_own_variables_and_nothing_else() -> None:
    base = base_env("/r", "/bin", {"PODFLEET_ROOT": "{root}"})
    env = pod_env(pod(env={"A": "x {{ RUNPOD_SECRET_key-1 }}", "RUNPOD_DC_ID": "mine"}), base, {"key-1": r"v\1"})
    assert env == {
        "PATH": "/bin",
        "HOME": "/r",
        "LANG": "C.UTF-8",
        "PODFLEET_ROOT": "/r",
        "RUNPOD_POD_ID": "abc",
        "RUNPOD_DC_ID": "mine",
        "RUNPOD_POD_HOSTNAME": "abc-localhost",
        "RUNPOD_GPU_COUNT": "1",
        "RUNPOD_CPU_COUNT": "6",
        "RUNPOD_PUBLIC_IP": "127.0.0.1",
        "RUNPOD_API_KEY": "rpa_pod",
        "RUNPOD_TCP_PORT_22": "41000",
        "CUDA_VERSION": "12.8",
        "PYTORCH_VERSION": "",
        "A": r"x v\1",
    }


def test_a_missing_secret_is_named() -> None:
    assert pod_env(pod(env={"A": "{{RUNPOD_SECRET_gone}}"}), {}, {}) == MissingSecret("A", "gone")


# -- wire -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": ""}, "name"),
        ({"name": "a", "nmae": "b"}, "nmae"),
        ({"name": "a", "gpu": {"id": "x", "bid": 0.1}}, "bid"),
        ({"name": "a", "ports": ["22"]}, "ports"),
        ({"name": "a", "cloud": "ALL"}, "cloud"),
        ({"name": "a", "env": {"A": 1}}, "env"),
        ({"name": "a", "disk": 0}, "disk"),
        ({"name": "a", "disk": "10"}, "disk"),
        ({"name": "a", "gpu": {"id": "x", "minCudaVersion": "12"}}, "minCudaVersion"),
        ({"name": "a", "mounts": {"persistent": {"size": 5, "path": "/w"}}}, "size"),
    ],
)
def test_a_create_that_breaks_the_schema_names_the_field(body: dict[str, object], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CreatePod.model_validate(body)
    assert any(where in error["loc"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 400),
        ({"gpu": {"id": A4000}, "cpu": {"id": "cpu3c", "vcpuCount": 2}}, 400),
        ({"gpu": {"id": A4000, "minCudaVersion": "12.8", "allowedCudaVersions": ["12.8"]}}, 400),
        ({"cpu": {"id": "cpu3c", "vcpuCount": 3}}, 400),
        ({"cpu": {"id": "cpu3c", "vcpuCount": 2}, "mounts": {"persistent": {"size": 10, "path": "/w"}}}, 400),
        ({"gpu": {"id": A4000}, "env": {f"A{n}": "" for n in range(51)}}, 400),
        ({"gpu": {"id": A4000}, "templateId": "t"}, 404),
        ({"gpu": {"id": A4000}, "mounts": {"network": [{"volumeId": "v", "path": "/w"}]}}, 404),
    ],
)
def test_rules_over_several_fields_are_400_and_unknown_references_404(more: dict[str, object], status: int) -> None:
    with pytest.raises(Problem) as caught:
        CreatePod.model_validate({"name": "a", "image": "i", **more}).to_request(Account(FACTS, EventLog()))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"product": "POD"}, 400),
        ({"count": "1"}, 400),
        ({"include": "AVAILABILITY"}, 400),
        ({"include": "AVAILABILITY", "product": "POD", "minCudaVersion": "12", "cudaVersions": "12.8"}, 400),
        ({"include": "AVAILABILITY", "product": "PODS"}, 422),
        ({"include": "AVAILABILITY", "product": "POD", "count": "0"}, 422),
        ({"include": "AVAILABILITY", "product": "POD", "countryCodes": "fr"}, 422),
    ],
)
def test_the_catalogue_s_query_rules(params: dict[str, str], status: int) -> None:
    with pytest.raises(Problem) as caught:
        availability_query(params)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("method", "path", "op"),
    [
        ("GET", "/v2/pods", "pods.list"),
        ("POST", "/v2/pods", "pods.create"),
        ("GET", "/v2/pods/a1", "pods.get"),
        ("DELETE", "/v2/pods/a1", "pods.delete"),
        ("POST", "/v2/pods/a1/action", "pods.action"),
        ("GET", "/v2/pods/a1/logs", "pods.logs"),
        ("GET", "/v2/catalog/gpus", "catalog.gpus"),
        ("GET", "/v2/catalog/gpus/NVIDIA L4", "catalog.gpus"),
        ("POST", "/v2/account/secrets", "secrets.create"),
        ("GET", "/v2/account/secrets", "secrets.list"),
        ("PATCH", "/v2/account/secrets/s", "secrets.update"),
        ("DELETE", "/v2/account/secrets/s", "secrets.delete"),
        ("PUT", "/v2/pods", "other"),
    ],
)
def test_every_request_has_one_operation(method: str, path: str, op: str) -> None:
    assert operation(method, path).op == op


# -- logs, HuJSON -----------------------------------------------------------------------------------------------------
def test_a_reader_gets_old_and_new_lines_once_and_ends_with_the_log() -> None:
    async def scenario() -> list[str | None]:
        log = PodLog()
        log.add("system", "one")
        log.add("container", "two")
        seen: list[str | None] = []

        async def read() -> None:
            async for line in log.follow(1, 60):
                seen.append(line.text if line else None)  # noqa: PERF401 - what came before the end counts, too

        reading = asyncio.ensure_future(read())
        for _ in range(5):
            await asyncio.sleep(0)
        log.add("container", "three")
        await asyncio.sleep(0)
        log.close()
        await asyncio.wait_for(reading, 1)
        return [text for text in seen if text is not None]

    assert asyncio.run(scenario()) == ["two", "three"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, // x\n /* y, } */ "b": [1, 2, /* z */ ], }', {"a": 1, "b": [1, 2]}),
        ('{"url": "http://x,}", "q": "\\",]"}', {"url": "http://x,}", "q": '",]'}),
    ],
)
def test_hujson_loses_comments_and_trailing_commas_and_keeps_strings(text: str, value: object) -> None:
    assert json.loads(standardized(text)) == value
