"""Pages in the place of problem documents: a person with a browser is no program."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import PROBLEM_TYPE

type MakePage = Callable[[Scope, dict[str, Any]], Response]


class ProblemPagesMiddleware:
    """Answers a problem at one of `paths` with a page, whichever part of the API refused the request.

    A path that ends in a slash is that of all paths below it. `make_page` makes the page of a problem document.
    """

    def __init__(self, app: ASGIApp, paths: tuple[str, ...], make_page: MakePage) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._below = tuple(path for path in paths if path.endswith("/"))
        self._make_page = make_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or not (scope["path"] in self._paths or scope["path"].startswith(self._below)):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        document = b""

        async def send_page(message: Message) -> None:
            nonlocal start, document
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type") == PROBLEM_TYPE:
                    start = message
                    return
            elif start is not None:
                document += message.get("body", b"")
                if not message.get("more_body"):
                    await _send_page(start, self._make_page(scope, orjson.loads(document)), send)
                return
            await send(message)

        await self._app(scope, receive, send_page)


async def _send_page(start: Message, page: Response, send: Send) -> None:
    """Send the page of a problem, with all headers of the problem document but those that the page has of its own."""
    headers = MutableHeaders(scope=start)
    headers.update(page.headers)
    await send(start)
    await send({"type": "http.response.body", "body": bytes(page.body)})
