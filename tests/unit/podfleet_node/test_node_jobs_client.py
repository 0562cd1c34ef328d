"""The client of the queue's protocol: errors by type, what is retried, downloads that go on."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from node_fakes import TinyQueue

from podfleet_node.errors import AudioGone, DownloadFailed, JobLost, NotRegistered, ServerRefused, ServerUnavailable
from podfleet_node.jobs_client import JobsClient
from podfleet_node.schemas import CompleteBody, FailBody, HeartbeatBody, RegisterBody

pytestmark = pytest.mark.anyio
AUDIO = "GET /api/nodes/jobs/*/audio"
FAIL = "POST /api/nodes/jobs/*/fail"


def _client(queue: object) -> JobsClient:
    return JobsClient("http://q", transport=httpx.MockTransport(queue))  # type: ignore[arg-type]


def _status(code: int) -> httpx.Response:
    return httpx.Response(code, json={"detail": "why"})


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, NotRegistered),
        (403, JobLost),
        (404, JobLost),
        (409, ServerRefused),
        (422, ServerRefused),
        (429, ServerUnavailable),
        (500, ServerUnavailable),
        (503, ServerUnavailable),
    ],
)
async def test_answers_of_job_calls_become_types(status: int, expected: type[Exception]) -> None:
    queue = TinyQueue(script={"POST /api/nodes/jobs/*/complete": [_status(status)]})
    with pytest.raises(expected):
        await _client(queue).complete(3, CompleteBody(transcript_text="x"))


@pytest.mark.parametrize("status", [401, 404])
async def test_a_server_that_forgot_this_node_is_told_apart(status: int) -> None:
    queue = TinyQueue(script={"POST /api/nodes/*/heartbeat": [_status(status)]})
    with pytest.raises(NotRegistered):
        await _client(queue).heartbeat("1", HeartbeatBody(name="n"))


async def test_silence_and_5xx_are_retried_and_4xx_are_not() -> None:
    queue = TinyQueue(script={FAIL: [httpx.ConnectError("no"), _status(500), _status(503)]})
    await _client(queue).fail(3, FailBody(error_message="x"))
    assert len(queue.calls(FAIL)) == 4
    queue = TinyQueue(script={FAIL: [_status(422)]})
    with pytest.raises(ServerRefused):
        await _client(queue).fail(3, FailBody(error_message="x"))
    assert len(queue.calls(FAIL)) == 1


async def test_every_answer_below_500_is_a_contact() -> None:
    contacts: list[int] = []
    queue = TinyQueue(script={"POST /api/nodes/*/heartbeat": [_status(500), _status(404)]})
    client = JobsClient("http://q", transport=httpx.MockTransport(queue), on_contact=lambda: contacts.append(1))
    for expected in (ServerUnavailable, NotRegistered):
        with pytest.raises(expected):
            await client.heartbeat("1", HeartbeatBody(name="n"))
    assert len(contacts) == 1


async def test_a_heartbeat_lists_an_empty_hand() -> None:
    queue = TinyQueue()
    await _client(queue).heartbeat("1", HeartbeatBody(name="n"))
    assert queue.calls("POST /api/nodes/*/heartbeat") == [{"name": "n", "claimed_job_ids": []}]


async def test_a_deleted_node_can_be_deleted_again() -> None:
    await _client(TinyQueue(script={"DELETE /api/nodes/*": [_status(404)]})).deregister("1")


class Flaky:
    """Serves `content` by Range and breaks off after `step` bytes."""

    def __init__(self, content: bytes, step: int, *, etags: tuple[str, ...] = ("v1",)) -> None:
        self.content, self.step, self.etags = content, step, list(etags)
        self.ranges: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        etag = self.etags.pop(0) if len(self.etags) > 1 else self.etags[0]
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        same = request.headers.get("If-Range") == etag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and same else 0
        body = _Breaks(self.content[start : start + self.step], broken=start + self.step < len(self.content))
        headers = {"etag": etag}
        if start:
            headers["content-range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        else:
            headers["content-length"] = str(len(self.content))
        return httpx.Response(206 if start else 200, headers=headers, stream=body)


class _Breaks(httpx.AsyncByteStream):
    def __init__(self, part: bytes, *, broken: bool) -> None:
        self.part, self.broken = part, broken

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        yield self.part
        if self.broken:
            raise httpx.ReadError("gone")


async def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    server = Flaky(content, step=400)
    assert await _client(server).download(1, tmp_path / "a") == len(content)
    assert (tmp_path / "a").read_bytes() == content
    assert server.ranges == ["", "bytes=400-", "bytes=800-"]


async def test_halves_of_two_files_are_never_joined(tmp_path: Path) -> None:
    content = b"new" * 100
    server = Flaky(content, step=200, etags=("old", "new", "new"))
    await _client(server).download(1, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content


async def test_a_download_that_never_ends_well_is_a_temporary_failure(tmp_path: Path) -> None:
    queue = TinyQueue(script={AUDIO: [_status(500)] * 9})
    with pytest.raises(DownloadFailed, match=r"5 tries.*500"):
        await _client(queue).download(1, tmp_path / "a")


@pytest.mark.parametrize(("status", "expected"), [(403, JobLost), (404, AudioGone), (410, AudioGone)])
async def test_audio_that_is_gone_or_not_ours(tmp_path: Path, status: int, expected: type[Exception]) -> None:
    queue = TinyQueue(script={AUDIO: [_status(status)]})
    with pytest.raises(expected):
        await _client(queue).download(1, tmp_path / "a")
    assert len(queue.calls(AUDIO)) == 1


@pytest.mark.parametrize("answer", [b"<html>log in first</html>", b"{}", b"[]"])
async def test_an_answer_of_something_else_is_no_answer(answer: bytes) -> None:
    client = _client(lambda _request: httpx.Response(200, content=answer))
    with pytest.raises(ServerUnavailable):
        await client.register(RegisterBody(name="n", url=""))


async def test_an_answer_that_cannot_be_decoded_is_no_answer() -> None:
    class Garbled(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"no gzip"

    answer = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Garbled())
    with pytest.raises(ServerUnavailable):
        await _client(lambda _request: answer).claim("1")


async def test_text_that_no_utf8_can_hold_is_sent_and_judged_by_the_server() -> None:
    queue = TinyQueue()
    await _client(queue).fail(3, FailBody(error_message="\ud800"))
    assert queue.calls(FAIL) == [{"error_message": "\ud800", "retry": True}]


async def test_audio_that_cannot_be_kept_is_a_temporary_failure(tmp_path: Path) -> None:
    client = _client(lambda _request: httpx.Response(200, content=b"audio"))
    with pytest.raises(DownloadFailed, match="cannot be kept"):
        await client.download(3, tmp_path / "absent" / "download")
