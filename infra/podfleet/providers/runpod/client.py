"""RunPod's REST v2 behind one typed door: a method per endpoint, typed results, typed errors.

Called by the provider's core, by the reconciler and by `podfleet status`. Why it is httpx and not the SDK:
docs/decisions/0002-own-http-client.md. Waiting for 429 and repeating reads happen here; deciding what to do after a
create whose outcome is unknown does not: `create_pod` sends exactly one POST that the server may have carried out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version

import httpx
import stamina

from podfleet.errors import (
    KEY_VARIABLE,
    ApiUnavailable,
    AuthError,
    IncompleteList,
    NoBalance,
    NoCapacity,
    ProviderError,
    RateLimited,
    RequestRejected,
)
from podfleet.providers.runpod.answers import JsonObject, Model, checked, parse
from podfleet.providers.runpod.budget import Kind
from podfleet.providers.runpod.client_account import AccountCalls
from podfleet.providers.runpod.clock import Clock, RealClock
from podfleet.providers.runpod.pacing import Pacer, Turn
from podfleet.providers.runpod.wire import (
    GpuOffer,
    LogLine,
    PodRequest,
    PodView,
    WireCatalog,
    WirePod,
    WirePodPage,
    log_lines,
)
from podfleet.urls import is_loopback

CAPACITY = re.compile(r"no (longer any )?instances|not have the resources|not enough free GPUs|enough disk space", re.I)
USABLE_KEY = re.compile(r"[!-~]+")  # anything else is refused by the HTTP library, with the key in its message
DEFAULT_URL = "https://api.runpod.io"
DETAIL_CHARS = 300
DEFAULT_RETRY_AFTER_S = 5.0
MOST_CONNECTIONS = 150  # more than all turns at the same time
LOG_IDLE_S = 1.0  # the stream stays open: a second without a line means that the history is through


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take: time-outs, repeats of reads, and waiting for a rate limit."""

    connect_s: float = 5.0
    read_s: float = 30.0
    create_read_s: float = 60.0
    read_attempts: int = 4
    retry_wait_s: float = 0.5
    rate_limit_s: float = 130.0


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and who we are there. The key is in no repr."""

    base_url: str = DEFAULT_URL
    api_key: str = field(default="", repr=False)

    @property
    def key_problem(self) -> str:
        """Why no request can carry this key; empty where one can. The key is not in the text."""
        if not self.api_key:
            return f"{KEY_VARIABLE} is empty"
        return "" if USABLE_KEY.fullmatch(self.api_key) else f"{KEY_VARIABLE} has blanks or letters that no key has"


class RunpodClient(AccountCalls):
    """Thread-safe; one per process. Raises ProviderError and its kinds only."""

    def __init__(
        self,
        access: Access,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._access = access
        self._clock = clock or RealClock()
        self._patience = patience or Patience()
        self._pacer = Pacer(self._clock, patience_s=self._patience.rate_limit_s)
        self._http = httpx.Client(
            base_url=f"{access.base_url.rstrip('/')}/v2",
            headers={
                "Authorization": f"Bearer {'' if access.key_problem else access.api_key}",
                "User-Agent": f"podfleet/{version('podfleet')}",
                "Accept": "application/json, application/problem+json",
            },
            timeout=httpx.Timeout(self._patience.read_s, connect=self._patience.connect_s),
            transport=transport,
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS),
            trust_env=not is_loopback(access.base_url),  # a proxy cannot reach this machine's own loopback
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def list_gap_s(self) -> float:
        """How far apart lists of all pods have to be, as things stand with the account's limits."""
        return self._pacer.list_gap_s()

    # Pods

    def list_pods(self) -> tuple[PodView, ...]:
        """Every pod of the account, all pages. Raises IncompleteList rather than return a part."""
        pages = self._pages("/pods", WirePodPage, {})
        return tuple(pod.view() for page in pages for pod in page.pods)

    def create_pod(self, request: PodRequest, *, before: Callable[[], None] | None = None) -> PodView:
        """One POST. ApiUnavailable with `maybe_done` means that a pod may exist all the same.

        `before` is called before each try, also after a long wait for a rate limit; what it raises stops the create.
        """
        read_s = self._patience.create_read_s
        response = self._send("POST", "/pods", json=request.body(), read_s=read_s, before=before)
        return parse(response, WirePod).view()

    def delete_pod(self, pod_id: str) -> bool:
        """Ask for its end; False where the API knows no such pod. Neither answer proves that it is gone."""
        return self._delete(f"/pods/{checked(pod_id)}")

    def pod_logs(
        self, pod_id: str, *, source: str = "container", tail: int = 100, wait_s: float = 5.0
    ) -> list[LogLine]:
        """The last `tail` lines. Ends when the stream is silent for a second, or after `wait_s`."""
        path, params = f"/pods/{checked(pod_id)}/logs", {"source": source, "tail": str(tail)}
        found: list[LogLine] = []
        end_s = self._clock.monotonic_s() + wait_s
        request = self._http.build_request("GET", path, params=params, headers={"Accept": "text/event-stream"})
        with closing(self._paced(request, stream=True)) as response:
            try:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise self._error(response)
                request.extensions["timeout"]["read"] = LOG_IDLE_S  # from here on: silence is the end
                with suppress(httpx.ReadTimeout):  # what was read until then is in `found`
                    found.extend(log_lines(self._until(response, end_s)))
            except httpx.HTTPError as error:
                raise self._unreachable(request, error) from error
        return found

    def _until(self, response: httpx.Response, end_s: float) -> Iterator[str]:
        for line in response.iter_lines():
            yield line
            if self._clock.monotonic_s() >= end_s:
                return

    # Catalogue

    def gpu_offers(self, *, cloud: str, min_cuda_version: str = "") -> tuple[GpuOffer, ...]:
        """Prices and stock of one cloud, as of now."""
        params = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud}
        if min_cuda_version:
            params["minCudaVersion"] = min_cuda_version
        return parse(self._read("/catalog/gpus", params), WireCatalog).offers(cloud)

    # How requests are sent

    def _pages(self, path: str, model: type[Model], params: Mapping[str, str]) -> Iterator[Model]:
        seen: set[str] = set()
        query = dict(params)
        while True:
            page = parse(self._read(path, query), model)
            yield page
            more = getattr(page, "pagination", None)
            if more is None or not more.has_next_page:
                return
            if not more.next_cursor or more.next_cursor in seen:
                raise IncompleteList(f"RunPod's list {path} does not end: its next page is missing or repeats itself")
            seen.add(more.next_cursor)
            query["cursor"] = more.next_cursor

    def _read(self, path: str, params: Mapping[str, str]) -> httpx.Response:
        return self._again(lambda: self._send("GET", path, params=params))

    def _graphql(self, query: str) -> httpx.Response:
        url = f"{self._access.base_url.rstrip('/')}/graphql"
        return self._http.post(url, json={"query": query}, timeout=self._patience.connect_s)

    def _delete(self, path: str) -> bool:
        try:
            self._again(lambda: self._send("DELETE", path))
        except RequestRejected as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def _again(self, call: Callable[[], httpx.Response]) -> httpx.Response:
        """Repeat what may be repeated: reads and deletes, on 5xx and lost answers, with jitter."""
        patience = self._patience
        for attempt in stamina.retry_context(
            on=ApiUnavailable,
            attempts=patience.read_attempts,
            timeout=None,
            wait_initial=patience.retry_wait_s,
            wait_jitter=patience.retry_wait_s,
            wait_max=8 * patience.retry_wait_s,
        ):
            with attempt:
                return call()
        raise AssertionError("unreachable: stamina returns or raises")

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: JsonObject | None = None,
        read_s: float | None = None,
        before: Callable[[], None] | None = None,
    ) -> httpx.Response:
        """One request, and again only where the server has said that it did not look at it (429)."""
        if problem := self._access.key_problem:
            raise AuthError(problem)
        timeout = httpx.Timeout(read_s or self._patience.read_s, connect=self._patience.connect_s)
        request = self._http.build_request(method, path, params=params, json=json, timeout=timeout)
        response = self._paced(request, before=before)
        if response.is_success:
            return response
        raise self._error(response)

    def _paced(
        self, request: httpx.Request, *, before: Callable[[], None] | None = None, stream: bool = False
    ) -> httpx.Response:
        """Any answer but 429, which is waited out; RateLimited where that would take too long."""
        kind = kind_of(request.method, request.url.path.removeprefix("/v2"))
        refused_s: float | None = None
        while True:
            with self._pacer.turn(kind) as turn:
                response = self._one(request, turn, before=before, stream=stream)
                now_s = self._clock.monotonic_s()
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    return response
                response.read()
                response.close()
                failure = RateLimited(self._said(response), retry_in_s=_retry_after_s(response))
                turn.refused(failure.retry_in_s)
                refused_s = refused_s or now_s
                if now_s - refused_s + failure.retry_in_s > self._patience.rate_limit_s:
                    raise failure.given_up()

    def _one(
        self, request: httpx.Request, turn: Turn, *, before: Callable[[], None] | None, stream: bool
    ) -> httpx.Response:
        turn.not_sent()
        if before:
            before()
        try:
            turn.sent = True
            response = self._http.send(request, stream=stream)
        except httpx.HTTPError as error:
            turn.sent = _may_have_arrived(error)
            raise self._unreachable(request, error) from error
        turn.answered(response.headers)
        return response

    def _unreachable(self, request: httpx.Request, error: httpx.HTTPError) -> ApiUnavailable:
        path = request.url.path.removeprefix("/v2")
        said = f"no answer from RunPod at {self._access.base_url} to {request.method} {path}"
        return ApiUnavailable(f"{said}: {error or type(error).__name__}", maybe_done=_may_have_arrived(error))

    def _error(self, response: httpx.Response) -> ProviderError:
        status, request_id = response.status_code, response.headers.get("x-request-id", "")
        detail, said = self._detail(response), self._said(response)
        if status == httpx.codes.UNAUTHORIZED:
            return AuthError(f"401 {detail}" + (f" (request {request_id})" if request_id else ""))
        if status == httpx.codes.PAYMENT_REQUIRED:
            return NoBalance(f"{said}: nothing was rented; top up the account, then run it again")
        if status == httpx.codes.BAD_REQUEST and CAPACITY.search(detail):
            return NoCapacity(said)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
            return ApiUnavailable(said, request_id=request_id)
        return RequestRejected(said, status=status, request_id=request_id)

    def _said(self, response: httpx.Response) -> str:
        request_id = response.headers.get("x-request-id", "")
        said = f"RunPod says {response.status_code}: {self._detail(response)}"
        return said + (f" (request {request_id})" if request_id else "")

    def _detail(self, response: httpx.Response) -> str:
        return _detail(response, hide=self._access.api_key)


def kind_of(method: str, path: str) -> Kind:
    """What a call is for, so that the urgent ones go first."""
    if method == "GET":
        return Kind.LIST if path == "/pods" else Kind.READ
    if path.startswith("/pods") and path.count("/") <= 2:
        return Kind.CREATE if method == "POST" else Kind.END if method == "DELETE" else Kind.CHANGE
    return Kind.CHANGE


def _may_have_arrived(error: httpx.HTTPError) -> bool:
    """Only a connection that was never made proves that nothing was done."""
    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _detail(response: httpx.Response, *, hide: str) -> str:
    """The problem's own words on one line, without the key should the server repeat it."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        errors = problem.get("errors")
        parts = [str(problem.get("detail") or problem.get("title") or ""), *map(str, errors or [])]
        text = "; ".join(part for part in parts if part)
    else:
        text = ""
    text = " ".join((text or response.reason_phrase or "no details").split())
    if hide:
        text = text.replace(hide, "***")
    return text[:DETAIL_CHARS]


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return DEFAULT_RETRY_AFTER_S
