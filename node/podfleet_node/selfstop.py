"""Asks the cloud to end this pod, with requests that came as settings. Standard library only; run by the supervisor.

Nothing here knows a provider. `${VAR}` is filled from the pod's environment at the last moment, so a key never stands
in a file, an argument or a log; log events name a request by its number and never by URL or header.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from podfleet_node.logs import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TIMEOUT_S = 20.0
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0
PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class StopRequest:
    """One request, placeholders unfilled."""

    url: str
    method: str = "DELETE"
    headers: dict[str, str] = field(default_factory=dict)
    json_body: Any = None

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> StopRequest | None:
        """From its JSON form; None when there is no URL to call."""
        url = entry.get("url")
        headers = entry.get("headers")
        if not isinstance(url, str) or not url:
            return None
        return cls(
            url=url,
            method=str(entry.get("method") or "DELETE").upper(),
            headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {},
            json_body=entry.get("json_body"),
        )


class Unfilled(Exception):
    """A variable that the request needs is not in the environment."""


def send_round(requests: Sequence[StopRequest], environ: Mapping[str, str], *, all_of_them: bool) -> bool:
    """Send the requests in order, up to the first that is accepted (or all of them). True when one was."""
    accepted = False
    for number, request in enumerate(requests, start=1):
        accepted = _send_one(number, request, environ) or accepted
        if accepted and not all_of_them:
            break
    return accepted


def keep_asking(
    requests: Sequence[StopRequest],
    environ: Mapping[str, str],
    *,
    wait: Callable[[float], bool],
) -> None:
    """Ask until this process is ended from outside. `wait(seconds)` returns True when it is time to give up.

    After a round that was accepted and did not end us, the next one sends every request: an answer is not an end.
    """
    wait_s, accepted = FIRST_WAIT_S, False
    while True:
        accepted = send_round(requests, environ, all_of_them=accepted)
        if wait(LONGEST_WAIT_S if accepted else wait_s):
            return
        wait_s = min(LONGEST_WAIT_S, wait_s * 2)


def fill(text: str, environ: Mapping[str, str]) -> str:
    """Replace every `${VAR}`; raises Unfilled with the name of the first one that is missing."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environ:
            raise Unfilled(name)
        return environ[name]

    return PLACEHOLDER.sub(value, text)


def _send_one(number: int, request: StopRequest, environ: Mapping[str, str]) -> bool:
    try:
        status = _send(_filled(request, environ))
    except Unfilled as err:
        emit("selfstop.unfilled", level="error", request=number, variable=str(err))
        return False
    except (OSError, HTTPException, ValueError) as err:
        emit("selfstop.failed", level="error", request=number, error=_kind(err))
        return False
    accepted = 200 <= status < 300
    emit("selfstop.answered", level="info" if accepted else "error", request=number, status=status)
    return accepted


def _filled(request: StopRequest, environ: Mapping[str, str]) -> urllib.request.Request:
    headers = {name: fill(value, environ) for name, value in request.headers.items()}
    body = None
    if request.json_body is not None:
        body = json.dumps(_fill_all(request.json_body, environ)).encode()
        headers.setdefault("Content-Type", "application/json")
    url = fill(request.url, environ)
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http URL")
    return urllib.request.Request(url, data=body, headers=headers, method=request.method)  # noqa: S310 - checked above


def _fill_all(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, environ)
    if isinstance(value, list):
        return [_fill_all(item, environ) for item in value]
    if isinstance(value, dict):
        return {key: _fill_all(item, environ) for key, item in value.items()}
    return value


def _send(request: urllib.request.Request) -> int:
    """The status of the answer. No proxy: the way to the cloud is direct, and a proxy is one more thing that fails."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_trust()))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        with err:
            return err.code


def _trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not context.get_ca_certs():
        _add_bundled_certificates(context)
    return context


def _add_bundled_certificates(context: ssl.SSLContext) -> None:
    """A slim image may have no certificates of its own; the HTTP client of the worker brings some along."""
    try:
        import certifi  # noqa: PLC0415 - the last resort, not needed elsewhere
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def _kind(err: Exception) -> str:
    """What happened, without the text of the error: it may quote the URL or a header."""
    cause = err.reason if isinstance(err, urllib.error.URLError) and isinstance(err.reason, Exception) else err
    return type(cause).__name__
