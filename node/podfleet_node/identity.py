"""Who this node is at the queue server: registered once, kept on disk, renewed when the server forgot it.

The first heartbeat follows at once: a claim alone does not make a node live. Used by the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podfleet_node.files import read_json, write_json
from podfleet_node.schemas import RegisterBody

if TYPE_CHECKING:
    from pathlib import Path

    from podfleet_node.jobs_client import JobsClient
    from podfleet_node.settings import NodeSettings


class Identity:
    """Node id and key; the key goes into the client and the file, nowhere else."""

    def __init__(self, path: Path, settings: NodeSettings, client: JobsClient) -> None:
        self._path = path
        self._settings = settings
        self._client = client
        self.node_id = ""

    def remember(self) -> bool:
        """Take over what an earlier worker of this pod registered at the same server under the same name."""
        kept = read_json(self._path) or {}
        same = kept.get("server_url") == self._settings.server_url and kept.get("name") == self._settings.node_name
        if not same or not kept.get("node_id"):
            return False
        self._use(str(kept["node_id"]), str(kept.get("api_key", "")))
        return True

    async def register(self, *, model: str) -> None:
        """Get a new id and key and keep them. Raises ServerUnavailable."""
        settings = self._settings
        answer = await self._client.register(
            RegisterBody(name=settings.node_name, url="", whisper_model=model, whisper_backend=settings.engine)
        )
        kept = {
            "node_id": answer.node_id,
            "api_key": answer.api_key,
            "name": settings.node_name,
            "server_url": settings.server_url,
            "http_proxy": settings.http_proxy,
        }
        write_json(self._path, kept)
        self._use(answer.node_id, answer.api_key)

    def forget(self) -> None:
        """The row at the server is gone, by our own wish."""
        self._path.unlink(missing_ok=True)

    def _use(self, node_id: str, api_key: str) -> None:
        self.node_id = node_id
        self._client.use_key(api_key)
