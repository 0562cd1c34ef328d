"""`GET /v2/openapi.json`: our description of the wire, `spec/runpod-v2.yaml`, with this server's address in it."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fastapi import APIRouter, Request

SPEC = Path(__file__).parent / "spec" / "runpod-v2.yaml"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def spec_routes() -> APIRouter:
    """One route, open to everybody as the service's is."""
    routes = APIRouter(prefix="/v2", include_in_schema=False)

    @routes.get("/openapi.json")
    async def openapi(request: Request) -> dict[str, Any]:
        return {**document(), "servers": [{"url": str(request.base_url).rstrip("/")}]}

    return routes


@cache
def document() -> dict[str, Any]:
    """The file, read once."""
    loaded: dict[str, Any] = yaml.load(SPEC.read_text("utf-8"), Loader=_LOADER)  # noqa: S506 - both loaders are safe
    return loaded
