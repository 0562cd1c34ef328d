"""The last words of a node whose worker could not say them. Standard library only; used by the supervisor.

A heartbeat that lists no job gives everything back to the queue; then the node's row goes.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from podfleet_node.files import read_json
from podfleet_node.logs import emit

if TYPE_CHECKING:
    from pathlib import Path

KEY_HEADER = "X-Transcriber-Key"


def say_farewell(identity_file: Path, *, timeout_s: float) -> bool:
    """Release and deregister by what the identity file says; True when the server heard it (or never knew us)."""
    identity = read_json(identity_file)
    if identity is None:
        return True
    node = f"{str(identity.get('server_url', '')).rstrip('/')}/api/nodes/{identity.get('node_id')}"
    beat: dict[str, Any] = {"name": identity.get("name"), "claimed_job_ids": []}
    heard = _send(identity, "POST", f"{node}/heartbeat", beat, timeout_s=timeout_s)
    if heard:
        _send(identity, "DELETE", node, None, timeout_s=timeout_s)
    emit("farewell.said" if heard else "farewell.unheard", level="info" if heard else "error")
    return heard


def _send(identity: dict[str, Any], method: str, url: str, body: Any, *, timeout_s: float) -> bool:
    if not url.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(  # noqa: S310 - checked above
        url,
        data=json.dumps(body).encode() if body is not None else None,
        headers={KEY_HEADER: str(identity.get("api_key", "")), "Content-Type": "application/json"},
        method=method,
    )
    proxy = str(identity.get("http_proxy") or "")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy} if proxy else {}))
    try:
        with opener.open(request, timeout=timeout_s):
            return True
    except urllib.error.HTTPError as err:
        with err:
            return err.code in {401, 404}
    except (OSError, HTTPException, ValueError):
        return False
