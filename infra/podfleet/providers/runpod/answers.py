"""What the client's modules share: reading an answer into a model, and ids that go into paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from podfleet.errors import ApiUnavailable, ProviderError, RequestRejected

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
Model = TypeVar("Model", bound=BaseModel)
JsonObject = Mapping[str, Any]


def parse(response: httpx.Response, model: type[Model]) -> Model:
    """Raises ApiUnavailable, which repeats no value of the answer."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        request_id = response.headers.get("x-request-id", "")
        where = ", ".join(sorted({".".join(map(str, problem["loc"])) or "body" for problem in error.errors()})[:3])
        text = f"RunPod's answer to {response.request.method} {response.request.url.path} cannot be read ({where})"
        raise ApiUnavailable(f"{text} (request {request_id})", request_id=request_id) from None


@contextmanager
def hiding(*secrets: str) -> Iterator[None]:
    """Whatever the API says of a request that carries `secrets`, it does not say them."""
    try:
        yield
    except ProviderError as error:
        for secret in filter(None, secrets):
            error.args = tuple(str(part).replace(secret, "***") for part in error.args)
        raise


def checked(identifier: str) -> str:
    """Ids go into paths: nothing but id characters may."""
    if not ID.fullmatch(identifier):
        raise RequestRejected(f"not an id: {identifier!r}", status=0)
    return identifier
