"""Asks the cloud to end this pod, with requests that came as settings. Standard library only; run by the supervisor.

Nothing here knows a provider. A request is an HTTP call or a command of the image. `${VAR}` is filled from the pod's
environment at the last moment, so a key never stands in a file, an argument or a log; log events name a request by its
number and never by URL, header or output.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
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
SECRET_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # what every process on the host could read in arguments
OURS = "PODFLEET_"
NO_SUCH_COMMAND = 127
# The shell tells the exit status: PID 1 collects every child, and may be faster than whoever waits for this one.
TELL_STATUS = '"$@" >/dev/null 2>&1 </dev/null; echo $?'


@dataclass(frozen=True, slots=True)
class StopRequest:
    """One request, placeholders unfilled: a URL to call, or a command with its arguments."""

    url: str = ""
    method: str = "DELETE"
    headers: dict[str, str] = field(default_factory=dict)
    json_body: Any = None
    argv: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> StopRequest | None:
        """From its JSON form; None when there is neither a URL to call nor a command."""
        argv = entry.get("argv")
        if isinstance(argv, list) and argv:
            return cls(argv=tuple(str(word) for word in argv))
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
    """A variable that the request needs is not in the environment, or must not be in a command's arguments."""


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
    wait_s, accepted, rounds = FIRST_WAIT_S, False, 0
    while True:
        rounds += 1
        accepted = send_round(requests, environ, all_of_them=accepted)
        pause_s = LONGEST_WAIT_S if accepted else wait_s
        level = "info" if accepted else "error"
        emit("selfstop.alive", level=level, round=rounds, accepted=accepted, next_round_in_s=pause_s)
        if wait(pause_s):
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
        if request.argv:
            return _told(number, _run(_arguments(request.argv, environ), environ))
        status = _send(_filled(request, environ))
    except Unfilled as err:
        emit("selfstop.unfilled", level="error", request=number, variable=str(err))
        return False
    except (OSError, HTTPException, ValueError, subprocess.SubprocessError) as err:
        emit("selfstop.failed", level="error", request=number, error=_kind(err))
        return False
    accepted = 200 <= status < 300
    emit("selfstop.answered", level="info" if accepted else "error", request=number, status=status)
    return accepted


def _told(number: int, exit_status: int) -> bool:
    if exit_status == NO_SUCH_COMMAND:
        emit("selfstop.failed", level="error", request=number, error="no such command in this image")
        return False
    emit("selfstop.answered", level="error" if exit_status else "info", request=number, exit_status=exit_status)
    return exit_status == 0


def _arguments(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Filled, but with nothing that is a secret by its name: a command finds its key in the environment."""
    for name in (name for word in argv for name in PLACEHOLDER.findall(word)):
        if name.endswith(SECRET_ENDINGS):
            raise Unfilled(name)
    return [fill(word, environ) for word in argv]


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit status. What it prints is thrown away: it may repeat a key or a URL."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", TELL_STATUS, "sh", *argv],
        env={name: value for name, value in environ.items() if not name.startswith(OURS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return int(out or b"-1")


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
