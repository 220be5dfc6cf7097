"""Pages in the place of problem documents: a person with a browser is no program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import PROBLEM_TYPE

type MakePage = Callable[[Scope, dict[str, Any]], Response]


@dataclass(frozen=True, slots=True)
class ProblemPages:
    """Where problems are pages, and the function that makes the page of a problem document.

    A path that ends in a slash is that of all paths below it.
    """

    paths: tuple[str, ...]
    make_page: MakePage

    def are_at(self, path: str) -> bool:
        """Return whether a problem at this path is a page."""
        return any(path.startswith(own) if own.endswith("/") else path == own for own in self.paths)

    def replace(self, document: bytes, headers: MutableHeaders, scope: Scope) -> bytes:
        """Return the body of the page of a problem document, whose `headers` become those of the page.

        They keep what the page has no header of its own for, such as Retry-After.
        """
        page = self.make_page(scope, orjson.loads(document))
        headers.update(page.headers)
        return bytes(page.body)


class ProblemPagesMiddleware:
    """Answers a problem at one of the paths of `pages` with a page, whichever part of the API refused the request."""

    def __init__(self, app: ASGIApp, pages: ProblemPages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or not self._pages.are_at(scope["path"]):
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
                    body = self._pages.replace(document, MutableHeaders(scope=start), scope)
                    await send(start)
                    await send({"type": "http.response.body", "body": body})
                return
            await send(message)

        await self._app(scope, receive, send_page)
