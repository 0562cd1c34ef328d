"""What is left of GraphQL: a pod, its end, its stop, the balance; who may ask; REST v1, which is gone."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from localcloud.testing import RunningCloud, wait_until

A4000 = "NVIDIA RTX A4000"
Create = Callable[..., dict[str, Any]]
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(api: httpx.Client) -> Ask:
    """Sends a document with the account's key."""

    def send(query: str, **more: Any) -> httpx.Response:
        return api.post("/graphql", json={"query": query, **more})

    return send


@pytest.fixture
def own(cloud: RunningCloud, create: Create) -> Iterator[tuple[dict[str, Any], httpx.Client]]:
    """A pod that says its key, and a client with that key."""
    pod = create(name="own", cmd=["-c", "echo key $RUNPOD_API_KEY end; sleep 60"])
    log = cloud.folder / "logs" / f"{pod['id']}.log"
    text = wait_until(lambda: log.exists() and " end" in log.read_text() and log.read_text(), what="the key")
    key = str(text).split("key ")[1].split()[0]
    with cloud.client(key) as client:
        yield pod, client


def status(api: httpx.Client, pod_id: str) -> str:
    return str(api.get(f"/v2/pods/{pod_id}").json()["status"])


def errors(answer: httpx.Response) -> list[tuple[str, str]]:
    """(message, code) of each error."""
    return [(error["message"], error["extensions"]["code"]) for error in answer.json()["errors"]]


def test_the_balance_and_what_runs_are_the_ledger_s(cloud: RunningCloud, ask: Ask, create: Create) -> None:
    create()
    answer = ask("query { myself { clientBalance currentSpendPerHr id } }")
    assert answer.status_code == 200
    me = answer.json()["data"]["myself"]
    assert me["currentSpendPerHr"] == cloud.ledger()["usd_per_hr"] == 0.25
    assert cloud.ledger()["balance_usd"] <= me["clientBalance"] < 25


def test_a_pod_is_shown_in_graphql_s_words(ask: Ask, create: Create) -> None:
    pod = create(env={"A": "b"}, ports=["22/tcp", "80/http"], disk=20)

    def shown(fields: str) -> Any:
        return ask(f'{{ pod(input: {{podId: "{pod["id"]}"}}) {{ {fields} }} }}').json()["data"]["pod"]

    wait_until(lambda: shown("runtime { uptimeInSeconds }")["runtime"], what="a runtime")
    found = shown(
        "id name desiredStatus env imageName ports costPerHr gpuCount containerDiskInGb machine { gpuDisplayName }"
        " runtime { ports { privatePort isIpPublic type } }"
    )
    assert found == {
        "id": pod["id"],
        "name": pod["name"],
        "desiredStatus": "RUNNING",
        "env": ["A=b"],
        "imageName": "podfleet/node:1",
        "ports": "22/tcp,80/http",
        "costPerHr": 0.25,
        "gpuCount": 1,
        "containerDiskInGb": 20,
        "machine": {"gpuDisplayName": "RTX A4000"},
        "runtime": {"ports": [{"privatePort": 22, "isIpPublic": True, "type": "tcp"}]},
    }
    assert shown("lastStatusChange")["lastStatusChange"].startswith("Rented by User: ")


def test_the_wished_state_is_running_from_the_start_and_in_error(
    cloud: RunningCloud, api: httpx.Client, ask: Ask, create: Create
) -> None:
    cloud.fault("pods.boot", "hold", name_contains="held")
    cloud.fault("pods.boot", "status", name_contains="failed")
    for name, state in (("held", "PROVISIONING"), ("failed", "ERROR")):
        pod = create(name=name)
        wait_until(lambda pod_id=pod["id"], state=state: status(api, pod_id) == state, what=state)
        answer = ask(f'{{ pod(input: {{podId: "{pod["id"]}"}}) {{ desiredStatus runtime {{ uptimeInSeconds }} }} }}')
        assert answer.json()["data"]["pod"] == {"desiredStatus": "RUNNING", "runtime": None}


def test_an_unknown_pod_is_null_to_read_and_an_error_to_end(ask: Ask) -> None:
    assert ask('{ pod(input: {podId: "nobody"}) { id } }').json() == {"data": {"pod": None}}
    answer = ask('mutation { podTerminate(input: {podId: "nobody"}) }')
    assert (answer.status_code, errors(answer)) == (200, [("pod not found to terminate", "POD_NOT_FOUND")])
    assert answer.json()["errors"][0]["path"] == ["podTerminate"]
    assert answer.json()["data"] == {"podTerminate": None}
    assert errors(ask('mutation { podStop(input: {podId: "nobody"}) { id } }'))[0][1] == "POD_NOT_FOUND"


def test_podstop_pauses_the_bill_and_podterminate_ends_it(cloud: RunningCloud, ask: Ask, create: Create) -> None:
    pod = create()
    stop = f'mutation {{ podStop(input: {{podId: "{pod["id"]}"}}) {{ id desiredStatus }} }}'
    assert ask(stop).json() == {"data": {"podStop": {"id": pod["id"], "desiredStatus": "EXITED"}}}
    assert cloud.ledger()["usd_per_hr"] == 0
    assert errors(ask(stop)) == [("cannot stop a pod that is EXITED", "RUNPOD")]
    end = f'mutation {{ podTerminate(input: {{podId: "{pod["id"]}"}}) }}'
    assert ask(end).json() == {"data": {"podTerminate": None}}
    assert cloud.live_pods() == []
    assert cloud.wait_for_event("pod.ended", pod_id=pod["id"])["reason"] == "terminate"


def test_variables_aliases_fragments_and_names_are_understood(ask: Ask, create: Create) -> None:
    pod = create()
    document = """
      query Other { myself { id } }
      query Look($input: PodFilter) { it: pod(input: $input) { ...names } }
      fragment names on Pod { called: name }
    """
    answer = ask(document, variables={"input": {"podId": pod["id"]}}, operationName="Look")
    assert answer.json() == {"data": {"it": {"called": pod["name"]}}}


@pytest.mark.parametrize(
    ("query", "more", "code", "words"),
    [
        ("{ myself { id bid } }", {}, "GRAPHQL_VALIDATION_FAILED", 'Cannot query field "bid" on type "User".'),
        ("{ podRentInterruptable }", {}, "GRAPHQL_VALIDATION_FAILED", '"podRentInterruptable"'),
        ("mutation { podTerminate(input: {id: 1}) }", {}, "GRAPHQL_VALIDATION_FAILED", '"podId"'),
        ("{ myself { id }", {}, "GRAPHQL_PARSE_FAILED", "Syntax Error"),
        ("query($i: PodFilter) { pod(input: $i) { id } }", {"variables": {"i": 7}}, "BAD_USER_INPUT", '"$i"'),
        ("{ myself { id } } { myself { id } }", {}, "GRAPHQL_VALIDATION_FAILED", "anonymous"),
    ],
)
def test_what_does_not_fit_the_schema_is_400_in_apollo_s_shape(
    ask: Ask, query: str, more: dict[str, Any], code: str, words: str
) -> None:
    answer = ask(query, **more)
    assert answer.status_code == 400
    found = errors(answer)
    assert {each for _, each in found} == {code}
    assert words in " ".join(message for message, _ in found)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"query": 1}', b'{"query": "{myself{id}}", "variables": []}'])
def test_a_body_without_a_document_is_400(api: httpx.Client, body: bytes) -> None:
    answer = api.post("/graphql", content=body)
    assert (answer.status_code, errors(answer)[0][1]) == (400, "BAD_REQUEST")


def test_the_key_is_taken_as_bearer_and_as_parameter_and_is_never_logged(
    cloud: RunningCloud, api: httpx.Client
) -> None:
    body = {"query": "{ myself { id } }"}
    with httpx.Client(base_url=cloud.runpod_url, trust_env=False) as nobody:
        assert nobody.post("/graphql", params={"api_key": cloud.api_key}, json=body).status_code == 200
        for params in ({}, {"api_key": ""}, {"api_key": "rpa_of_somebody_else"}):
            refused = nobody.post("/graphql", params=params, json=body)
            assert (refused.status_code, errors(refused)[0][1]) == (401, "UNAUTHENTICATED")
        assert nobody.get("/v2/pods", params={"api_key": cloud.api_key}).status_code == 401
    assert cloud.api_key not in str(cloud.events())


def test_the_day_it_is_gone_is_a_setting_and_v1_is_gone_already(
    cloud: RunningCloud, ask: Ask, api: httpx.Client
) -> None:
    cloud.settings(graphql="gone")
    gone = ask("{ myself { id } }")
    assert (gone.status_code, errors(gone)[0][0]) == (410, "this API has been retired")
    cloud.settings(graphql="on")
    assert ask("{ myself { id } }").status_code == 200
    for method, path in (("GET", "/v1/pods"), ("POST", "/v1/pods"), ("DELETE", "/v1/pods/x"), ("GET", "/v1")):
        answer = api.request(method, path)
        assert (answer.status_code, answer.json()) == (410, {"error": "this API has been retired", "status": 410})


def test_faults_and_the_request_log_name_the_field_that_is_asked_for(
    cloud: RunningCloud, ask: Ask, create: Create
) -> None:
    pod = create(name="own")
    end = f'mutation {{ podTerminate(input: {{podId: "{pod["id"]}"}}) }}'
    cloud.fault("graphql.podTerminate", "status", status=500, name_contains="own")
    assert ask("{ myself { id } }").status_code == 200
    refused = ask(end)
    assert (refused.status_code, "errors" in refused.json()) == (500, True)
    cloud.fault("graphql", "drop")
    with pytest.raises(httpx.RemoteProtocolError):
        ask("{ myself { id } }")
    assert ask(end).json() == {"data": {"podTerminate": None}}
    seen = [event["op"] for event in cloud.events("request") if event["op"].startswith("graphql")]
    assert seen == ["graphql.myself", "graphql.podTerminate", "graphql.myself", "graphql.podTerminate"]


# -- the pod's own key ------------------------------------------------------------------------------------------------
def query_of(field: str, pod_id: str) -> str:
    return {
        "pod": f'{{ pod(input: {{podId: "{pod_id}"}}) {{ id }} }}',
        "podStop": f'mutation {{ podStop(input: {{podId: "{pod_id}"}}) {{ id }} }}',
        "podTerminate": f'mutation {{ podTerminate(input: {{podId: "{pod_id}"}}) }}',
    }[field]


def test_a_pod_s_key_sees_and_ends_its_own_pod_and_not_another_or_the_account(
    own: tuple[dict[str, Any], httpx.Client], cloud: RunningCloud, create: Create
) -> None:
    pod, client = own
    other = create(name="other")

    def ask_own(query: str) -> httpx.Response:
        return client.post("/graphql", json={"query": query})

    assert ask_own(query_of("pod", pod["id"])).json()["data"]["pod"] == {"id": pod["id"]}
    for field in ("pod", "podStop", "podTerminate"):
        assert errors(ask_own(query_of(field, other["id"]))) == [("Unauthorized", "UNAUTHORIZED")]
    assert errors(ask_own("{ myself { id } }")) == [("Unauthorized", "UNAUTHORIZED")]
    made_up = ask_own(query_of("podTerminate", "nobody"))
    assert errors(made_up) == [("pod not found to terminate", "POD_NOT_FOUND")]
    assert ask_own(query_of("podTerminate", pod["id"])).json() == {"data": {"podTerminate": None}}
    assert [each["name"] for each in cloud.live_pods()] == ["other"]


def test_what_a_pod_s_key_may_do_is_a_setting(own: tuple[dict[str, Any], httpx.Client], cloud: RunningCloud) -> None:
    pod, client = own
    cloud.settings(pod_key_rights=[])
    assert client.get(f"/v2/pods/{pod['id']}").status_code == 403
    assert client.delete(f"/v2/pods/{pod['id']}").status_code == 403
    for field in ("pod", "podStop", "podTerminate"):
        refused = client.post("/graphql", json={"query": query_of(field, pod["id"])})
        assert errors(refused) == [("Unauthorized", "UNAUTHORIZED")], field
    cloud.settings(pod_key_rights=["pods.logs", "graphql.podStop"])
    assert client.get(f"/v2/pods/{pod['id']}").status_code == 403
    with client.stream("GET", f"/v2/pods/{pod['id']}/logs") as logs:
        assert logs.status_code == 200
    stopped = client.post("/graphql", json={"query": query_of("podStop", pod["id"])})
    assert stopped.json() == {"data": {"podStop": {"id": pod["id"]}}}
    assert [each["status"] for each in cloud.live_pods()] == ["EXITED"]
