"""Keeps the state before an answer is sent. Plain ASGI; around the routes of both servers."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class KeepFirst:
    """Calls `keep` between what a route did and the first byte that tells of it."""

    def __init__(self, app: ASGIApp, keep: Callable[[], None]) -> None:
        self._app = app
        self._keep = keep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def keep_first(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._keep()
            await send(message)

        await self._app(scope, receive, keep_first)
