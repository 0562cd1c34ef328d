"""A running cloud as its command line sees it: where it listens, and one request to its control routes."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from localcloud.errors import BadFault, NotRunning
from localcloud.statedir import Running, StateDir

DEFAULT_DIR = Path(".podfleet/localcloud")


def running(folder: Path) -> Running:
    """The daemon of a folder; NotRunning."""
    state = StateDir(folder)
    found = state.running()
    if found is None or not state.is_locked():
        raise NotRunning(f"not running in {state.path}; start it with `localcloud up`")
    return found


def call(daemon: Running, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request; no proxy of the environment is asked. BadFault with the daemon's own words for a refusal."""
    address = urlsplit(daemon.runpod_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, quote(path), content, {"Content-Type": "application/json"} if content else {})
        answer = connection.getresponse()
        said = json.loads(answer.read() or b"null")
    except OSError as error:
        raise NotRunning(f"no answer from {daemon.runpod_url}: {error}") from None
    finally:
        connection.close()
    if answer.status >= 400:
        raise BadFault("; ".join(said.get("errors") or [said.get("detail", f"status {answer.status}")]))
    return said
