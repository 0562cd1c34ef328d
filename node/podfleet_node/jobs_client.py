"""The queue server behind one typed door: cast2md's node protocol. Used by identity, prefetch and worker.

One method per call, errors by type: 403 is JobLost, 401/404 on our own node NotRegistered, 5xx and silence
ServerUnavailable, 404/410 on audio AudioGone. Retries with jitter, on ServerUnavailable only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from podfleet_node.errors import AudioGone, DownloadFailed, JobLost, NotRegistered, ServerRefused, ServerUnavailable
from podfleet_node.schemas import (
    KEY_HEADER,
    ClaimAnswer,
    CompleteBody,
    FailBody,
    HeartbeatBody,
    ProgressBody,
    RegisterBody,
    Registration,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from pathlib import Path

Answer = TypeVar("Answer", bound=BaseModel)

CALL_S = 10.0
COMPLETE_S = 60.0
AUDIO_READ_S = 30.0
RELEASE_S = 5.0
TRIES = 5


class JobsClient:
    """One queue server, one node. `on_contact` is called for every answer below 500."""

    def __init__(
        self,
        server_url: str,
        *,
        proxy: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        on_contact: Callable[[], None] = lambda: None,
        tries: int = TRIES,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=server_url, proxy=proxy or None, transport=transport, trust_env=False, timeout=CALL_S
        )
        self._on_contact = on_contact
        self._tries = tries

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        await self._http.aclose()

    def use_key(self, api_key: str) -> None:
        """The key of all later calls."""
        self._http.headers[KEY_HEADER] = api_key

    # This node

    async def register(self, body: RegisterBody) -> Registration:
        """Get an id and a key."""
        answer = await self._call("POST", "/api/nodes/register", body)
        _refuse(answer)
        return _parsed(Registration, answer)

    async def heartbeat(self, node_id: str, body: HeartbeatBody) -> None:
        """Say that we live and what we hold; what is not listed is released. One try: the next beat is the retry."""
        _own_node(await self._call("POST", f"/api/nodes/{node_id}/heartbeat", body))

    async def claim(self, node_id: str) -> ClaimAnswer:
        """Ask for one job. One try: a claim whose answer was lost must be followed by a heartbeat."""
        answer = _own_node(await self._call("POST", f"/api/nodes/{node_id}/claim"))
        return _parsed(ClaimAnswer, answer)

    async def deregister(self, node_id: str) -> None:
        """Delete our row; an absent one is a success."""
        answer = await self._call("DELETE", f"/api/nodes/{node_id}", timeout_s=RELEASE_S)
        if answer.status_code != httpx.codes.NOT_FOUND:
            _refuse(answer)

    # One job

    async def progress(self, job_id: int, percent: int) -> None:
        """Show progress; also the cheap question whether the job is still ours. One try."""
        body = ProgressBody(progress_percent=max(0, min(100, percent)))
        _own_job(await self._call("POST", f"/api/nodes/jobs/{job_id}/progress", body))

    async def complete(self, job_id: int, body: CompleteBody) -> None:
        """Hand over a transcript. One try: the spool repeats it for as long as it takes; the server takes repeats."""
        _own_job(await self._call("POST", f"/api/nodes/jobs/{job_id}/complete", body, timeout_s=COMPLETE_S))

    async def fail(self, job_id: int, body: FailBody) -> None:
        """Say why a job failed here."""
        async for attempt in self._retrying():
            with attempt:
                _own_job(await self._call("POST", f"/api/nodes/jobs/{job_id}/fail", body))

    async def release(self, job_id: int) -> None:
        """Give a job back to the queue."""
        async for attempt in self._retrying():
            with attempt:
                _own_job(await self._call("POST", f"/api/nodes/jobs/{job_id}/release", timeout_s=RELEASE_S))

    async def download(self, job_id: int, target: Path) -> int:
        """Fetch a job's audio into `target` (a new file), going on where a broken try stopped; returns its bytes.

        Raises JobLost, AudioGone, or DownloadFailed after several tries.
        """
        seen = _Validator()
        try:
            async for attempt in self._retrying():
                with attempt:
                    await self._download_rest(f"/api/nodes/jobs/{job_id}/audio", target, seen)
        except ServerUnavailable as err:
            raise DownloadFailed(f"gave up after {self._tries} tries: {err}") from err
        except OSError as err:
            raise DownloadFailed(f"the audio cannot be kept: {err.strerror}") from err
        return _size(target)

    async def _download_rest(self, path: str, target: Path, seen: _Validator) -> None:
        start = _size(target)
        timeout = httpx.Timeout(CALL_S, read=AUDIO_READ_S)
        try:
            async with self._http.stream("GET", path, headers=seen.range_headers(start), timeout=timeout) as answer:
                self._heard(answer)
                if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and seen.is_whole(start):
                    return
                _audio(answer)
                seen.note(answer)
                resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
                with target.open("ab" if resumed else "wb") as out:
                    async for chunk in answer.aiter_raw():
                        out.write(chunk)
        except httpx.RequestError as err:
            raise ServerUnavailable(_kind(err)) from err
        if seen.size is not None and _size(target) != seen.size:
            raise ServerUnavailable(f"{_size(target)} of {seen.size} bytes came")

    async def _call(
        self, method: str, path: str, body: BaseModel | None = None, *, timeout_s: float = CALL_S
    ) -> httpx.Response:
        content = json.dumps(body.model_dump(exclude_none=True)) if body is not None else None
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            answer = await self._http.request(method, path, content=content, headers=headers, timeout=timeout_s)
        except httpx.RequestError as err:
            raise ServerUnavailable(_kind(err)) from err
        self._heard(answer)
        return answer

    def _heard(self, answer: httpx.Response) -> None:
        if (
            answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
        ):
            raise ServerUnavailable(f"the server answered {answer.status_code}")
        self._on_contact()

    def _retrying(self) -> AsyncIterable[stamina.Attempt]:
        return stamina.retry_context(
            on=ServerUnavailable, attempts=self._tries, timeout=60.0, wait_initial=0.3, wait_max=10.0, wait_jitter=1.0
        )


class _Validator:
    """What was learnt of a file, so that two halves of two files are never joined."""

    def __init__(self) -> None:
        self.size: int | None = None
        self._etag = ""

    def range_headers(self, start: int) -> dict[str, str]:
        """Headers that go on at `start`, if the file is still the same one."""
        plain = {"Accept-Encoding": "identity"}  # lengths and ranges count the bytes of the file
        if start == 0 or not self._etag:
            return plain
        return {**plain, "Range": f"bytes={start}-", "If-Range": self._etag}

    def is_whole(self, start: int) -> bool:
        """Nothing is missing."""
        return self.size is not None and start == self.size

    def note(self, answer: httpx.Response) -> None:
        """Learn from a 200 or 206."""
        self._etag = answer.headers.get("etag", "")
        if answer.status_code == httpx.codes.PARTIAL_CONTENT:
            total = answer.headers.get("content-range", "").rpartition("/")[2]
        else:
            total = answer.headers.get("content-length", "")
        self.size = int(total) if total.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _own_node(answer: httpx.Response) -> httpx.Response:
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND}:
        raise NotRegistered(_detail(answer))
    return _refuse(answer)


def _own_job(answer: httpx.Response) -> httpx.Response:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NotRegistered(_detail(answer))
    if answer.status_code in {httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}:
        raise JobLost(_detail(answer))
    return _refuse(answer)


def _audio(answer: httpx.Response) -> None:
    """Its body is not read yet, so a refusal has its status only."""
    if answer.status_code == httpx.codes.FORBIDDEN:
        raise JobLost("403 on audio")
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NotRegistered("401 on audio")
    if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
        raise AudioGone(f"the server answered {answer.status_code} for the audio")
    if not answer.is_success:
        raise ServerRefused(f"{answer.status_code} for the audio", status=answer.status_code)


def _parsed(model: type[Answer], answer: httpx.Response) -> Answer:
    """A page of something that stands between us and the server is no answer."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        raise ServerUnavailable("the answer is not the protocol's") from None


def _refuse(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise ServerRefused(f"{answer.status_code} {_detail(answer)}", status=answer.status_code)
    return answer


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _kind(err: httpx.RequestError) -> str:
    """The kind of failure; its text may hold a URL."""
    return f"no answer ({type(err).__name__})"
