"""Pages in the place of problem documents: a customer with a browser is no program."""

from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.approval.pages import HEADERS, problem_page
from api.paths import APPROVAL_PATHS
from api.problems import PROBLEM_TYPE, Code


class ProblemPagesMiddleware:
    """Answers a problem at the path of an approval page with a page, whichever part of the API refused the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http" or not scope["path"].startswith(APPROVAL_PATHS):
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
                    await _send_page(start, orjson.loads(document), send)
                return
            await send(message)

        await self._app(scope, receive, send_page)


async def _send_page(start: Message, problem: dict[str, Any], send: Send) -> None:
    """Send the page of a problem, with all headers of the problem document but those of its body."""
    page = problem_page(Code(problem["code"]))
    headers = MutableHeaders(scope=start)
    headers.update(HEADERS)
    for name in ("content-type", "content-length"):
        headers[name] = page.headers[name]
    await send(start)
    await send({"type": "http.response.body", "body": bytes(page.body)})
