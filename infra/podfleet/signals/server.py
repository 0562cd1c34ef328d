"""A transcription server as a reader sees it: one connection, answers of a known shape. Base of `queue` and `nodes`."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from podfleet.errors import SignalError
from podfleet.urls import is_loopback

TIMEOUT_S = 10.0
M = TypeVar("M", bound=BaseModel)


class Wire(BaseModel):
    """An answer, or a part of one. Fields that we do not use are ignored."""

    model_config = ConfigDict(extra="ignore")


class Server:
    """Used as a context, which closes the connection."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, transport=transport, trust_env=not is_loopback(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _read(self, path: str, model: type[M], params: Mapping[str, str | int | float] | None = None) -> M:
        """Raises SignalError when the answer is missing or not understood."""
        try:
            answer = self._http.get(path, params=params)
            answer.raise_for_status()
            return model.model_validate_json(answer.content)
        except httpx.HTTPStatusError as error:
            raise SignalError(f"{self._url}{path} answered {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise SignalError(f"{self._url}{path}: {error or type(error).__name__}") from None
        except ValidationError as error:
            raise SignalError(f"{self._url}{path}: not understood: {error.errors()[0]['msg']}") from None
