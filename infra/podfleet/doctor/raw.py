"""Plain requests for questions that the typed client does not ask: status, headers and text as they come.

Never raises: no answer is an answer, too. The key is in no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import httpx

from podfleet.urls import is_loopback

TIMEOUT_S = 15.0
SHOWN_CHARS = 200
NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is 0 where nothing came back; then `text` says why."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def detail(self) -> str:
        """Its own words, on one line."""
        said = self.text
        if isinstance(self.body, dict):
            said = str(self.body.get("detail") or self.body.get("title") or self.body.get("error") or self.text)
        return " ".join(said.split())[:SHOWN_CHARS]

    def __str__(self) -> str:
        return f"{self.status} {self.detail}".strip() if self.status else f"no answer ({self.detail})"


class Raw:
    """One place to ask. `key` goes along unless a question says that it must not."""

    def __init__(self, base_url: str, key: str = "", *, transport: httpx.BaseTransport | None = None) -> None:
        self._key = key
        self._http = httpx.Client(
            base_url=base_url,
            timeout=TIMEOUT_S,
            headers={"User-Agent": f"podfleet/{version('podfleet')}"},
            transport=transport,
            trust_env=not is_loopback(base_url),
        )

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def get(self, path: str, *, params: Mapping[str, str] | None = None, with_key: bool = True) -> Answer:
        return self._ask("GET", path, params=params, with_key=with_key)

    def post(self, path: str, json: Mapping[str, Any]) -> Answer:
        return self._ask("POST", path, json=json)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        with_key: bool = True,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self._key}"} if with_key and self._key else {}
        try:
            got = self._http.request(method, path, params=params, json=json, headers=headers)
        except (httpx.HTTPError, ValueError) as error:  # ValueError: a key that no header can carry
            return Answer(NO_ANSWER, self._hidden(str(error) or type(error).__name__))
        try:
            body = got.json()
        except ValueError:
            body = None
        return Answer(got.status_code, self._hidden(got.text), dict(got.headers), body)

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text
