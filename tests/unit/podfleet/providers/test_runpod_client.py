"""The client against odd answers: what becomes an error, which one, and what is never sent twice."""

from __future__ import annotations

import httpx
import pytest
from runpod_fakes import CAPACITY, FakeClock, FakeRunpod, client_of, lost, problem

from podfleet.errors import (
    ApiUnavailable,
    AuthError,
    IncompleteList,
    NoBalance,
    NoCapacity,
    ProviderError,
    RateLimited,
    RequestRejected,
)
from podfleet.providers.runpod.client import CAPACITY as CLASSIFIER
from podfleet.providers.runpod.client import Access
from podfleet.providers.runpod.wire import PodRequest, log_lines

REQUEST = PodRequest("n", "img", "NVIDIA L4", "SECURE", None, "12.8", 20, ("22/tcp",), {"A": "b"})


def test_a_list_has_all_pages() -> None:
    fake = FakeRunpod()
    fake.page_size = 2
    ids = [fake.add(f"p-dev-slot-0{n}-0000000{n}") for n in range(5)]
    assert [pod.id for pod in client_of(fake).list_pods()] == ids


def test_a_list_without_pagination_is_one_page() -> None:
    client = client_of(lambda _: httpx.Response(200, json={"pods": [{"id": "a", "name": "n"}]}))
    assert [pod.id for pod in client.list_pods()] == ["a"]


@pytest.mark.parametrize("cursor", ["x", None, ""])
def test_a_list_that_does_not_end_is_an_error(cursor: str | None) -> None:
    page = {"pods": [], "pagination": {"hasNextPage": True, "nextCursor": cursor}}
    with pytest.raises(IncompleteList):
        client_of(lambda _: httpx.Response(200, json=page)).list_pods()


def test_a_page_that_fails_makes_the_list_fail() -> None:
    fake = FakeRunpod()
    fake.page_size = 1
    fake.add("a-00000001")
    fake.add("b-00000002")
    fake.next("get_pod", fake.do_get_pod, *[lambda _: problem(500, "oops")] * 4)
    with pytest.raises(ApiUnavailable):
        client_of(fake).list_pods()


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[]", b'{"pods": [{"name": "no id"}]}'])
def test_an_unreadable_list_is_no_empty_list(body: bytes) -> None:
    with pytest.raises(ApiUnavailable, match="cannot be read"):
        client_of(lambda _: httpx.Response(200, content=body)).list_pods()


def test_reads_are_repeated_on_5xx() -> None:
    fake = FakeRunpod()
    fake.next("get_pod", lambda _: problem(502, "bad gateway"), lost)
    assert client_of(fake).list_pods() == ()
    assert fake.lists() == 3


@pytest.mark.parametrize("answer", [lost, lambda _: problem(500, "x"), lambda _: httpx.Response(201, text="{}")])
def test_a_create_of_unclear_outcome_is_sent_once(answer: object) -> None:
    fake = FakeRunpod()
    fake.next("post_pod", answer)  # type: ignore[arg-type]
    with pytest.raises(ApiUnavailable) as caught:
        client_of(fake).create_pod(REQUEST)
    assert caught.value.maybe_done
    assert len(fake.posts()) == 1


def test_a_connection_that_was_never_made_has_done_nothing() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ApiUnavailable) as caught:
        client_of(refuse).create_pod(REQUEST)
    assert not caught.value.maybe_done


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (400, CAPACITY, NoCapacity),
        (400, "gpu id is not known", RequestRejected),
        (401, "missing bearer token", AuthError),
        (402, "Your account balance is too low to rent a pod", NoBalance),
        (403, "access denied", RequestRejected),
        (404, "resource not found", RequestRejected),
        (408, "timed out", ApiUnavailable),
        (410, "gone", RequestRejected),
        (422, "additional properties not allowed", RequestRejected),
        (500, "Something went wrong.", ApiUnavailable),
        (503, "x", ApiUnavailable),
    ],
)
def test_each_status_has_its_error(status: int, detail: str, kind: type[ProviderError]) -> None:
    with pytest.raises(kind) as caught:
        client_of(lambda _: problem(status, detail)).create_pod(REQUEST)
    text = str(caught.value)
    assert detail in text
    assert "req-1" in text
    assert "\n" not in text


def test_a_refused_key_names_the_variable_and_never_the_key() -> None:
    with pytest.raises(AuthError, match="RUNPOD_API_KEY") as caught:
        client_of(lambda _: problem(401, "bad key rpa_secret"), key="rpa_secret").list_pods()
    assert "rpa_secret" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_without_a_key_nothing_is_sent() -> None:
    fake = FakeRunpod()
    with pytest.raises(AuthError, match="RUNPOD_API_KEY is empty"):
        client_of(fake, key="").list_pods()
    assert fake.requests == []


@pytest.mark.parametrize("key", ["rpa_secret\n", "rpa secret", "rpa_sécret"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(AuthError, match="RUNPOD_API_KEY has blanks") as caught:
        client_of(FakeRunpod(), key=key).list_pods()
    assert "rpa" not in str(caught.value)


def test_no_repr_shows_key_or_environment() -> None:
    assert "rpa_x" not in repr(Access("http://h", "rpa_x"))
    assert "secret-value" not in repr(PodRequest("n", "i", "g", "SECURE", None, "", 1, (), {"K": "secret-value"}))


def test_429_waits_as_long_as_the_server_says() -> None:
    fake, clock = FakeRunpod(), FakeClock()
    limited = lambda _: problem(429, "rate limit exceeded for the minute window", **{"Retry-After": "7"})  # noqa: E731
    fake.next("post_pod", limited, limited)
    assert client_of(fake, clock).create_pod(REQUEST).id == "pod0001"
    assert [round(slept, 1) for slept in clock.slept] == [pytest.approx(7.5, abs=0.51)] * 2


def test_429_for_too_long_is_an_error_that_says_when() -> None:
    with pytest.raises(RateLimited) as caught:
        client_of(lambda _: problem(429, "rate limit", **{"Retry-After": "60"})).list_pods()
    assert caught.value.retry_in_s == 60
    assert "asks to wait 60 s more, which is too long; run it again" in str(caught.value)


def test_an_html_error_is_one_short_line() -> None:
    page = httpx.Response(502, text="<html>\n" + "cloudflare " * 1000)
    with pytest.raises(ApiUnavailable) as caught:
        client_of(lambda _: page).create_pod(REQUEST)
    assert len(str(caught.value)) < 120


def test_delete_knows_absent_from_ended() -> None:
    fake = FakeRunpod()
    pod_id = fake.add("a-00000001")
    client = client_of(fake)
    assert client.delete_pod(pod_id)
    assert not client.delete_pod(pod_id)


@pytest.mark.parametrize("evil", ["../account/secrets/x", "a/b", "", "a?b", "a b"])
def test_an_id_is_no_path(evil: str) -> None:
    fake = FakeRunpod()
    with pytest.raises(RequestRejected):
        client_of(fake).delete_pod(evil)
    assert fake.requests == []


def test_logs_end_when_the_stream_falls_silent() -> None:
    class Stream(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield b': ping\n\nid: 1\ndata: {"ts":"t","source":"container","line":"one"}\n\n'
            yield b"data: not json\n\n"
            yield b'data: {"ts":"t","source":"container",\ndata: "line":"two"}\n\n'
            raise httpx.ReadTimeout("silent")

    lines = client_of(lambda _: httpx.Response(200, stream=Stream())).pod_logs("pod1")
    assert [line.text for line in lines] == ["one", "two"]


def test_logs_of_an_unknown_pod_are_an_error() -> None:
    with pytest.raises(RequestRejected):
        client_of(lambda _: problem(404, "resource not found")).pod_logs("pod1")


def test_an_event_in_two_data_lines_is_one_line() -> None:
    assert [line.text for line in log_lines(['data: {"line":', 'data: "x"}', ""])] == ["x"]


def test_offers_have_the_price_of_the_cloud_asked_for() -> None:
    gpu = {"id": "G", "name": "g", "memory": 24, "price": {"secure": 0.74, "community": None}, "availability": "LOW"}
    client = client_of(lambda _: httpx.Response(200, json={"gpus": [gpu]}))
    assert [offer.usd_per_hr for offer in client.gpu_offers(cloud="SECURE")] == [0.74]
    assert client.gpu_offers(cloud="COMMUNITY") == ()


@pytest.mark.parametrize(
    "text",
    [
        CAPACITY,
        "There are no longer any instances available with the request specifications. Please try again later.",
        "There are no instances available with the request specifications. Please try again later.",
        "There are no longer any instances available with enough disk space.",
        "This machine does not have the resources to deploy your pod. Please try a different machine",
        "There are no instances currently available",
        "There are not enough free GPUs on the host machine to start this pod.",
    ],
)
def test_every_known_text_for_no_capacity_is_known(text: str) -> None:
    assert CLASSIFIER.search(text)
