"""The JSON API as the principal of a session uses it: the same routes, rights, checks and words, without a socket.

So a page shows nothing, and a button does nothing, that the principal's own requests could not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Scope

from api.auth.dependencies import authenticated_scope
from api.auth.principal import Principal
from api.paths import PREFIX
from api.problems import KINDS, Code

# What a request of ours has in common with the request of the browser. Nothing else of that one may play a part.
_COMMON = (
    "type",
    "asgi",
    "http_version",
    "server",
    "client",
    "scheme",
    "root_path",
    "state",
    "app",
    "correlation_id",
    "payments.root_path",
    "starlette.exception_handlers",
    "fastapi_middleware_astack",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the JSON API answered: an object, or a problem document."""

    status: int
    content: dict[str, Any]
    headers: Headers = field(default_factory=Headers)

    @property
    def is_done(self) -> bool:
        """Whether it is no problem."""
        return HTTPStatus(self.status).is_success

    @property
    def is_replayed(self) -> bool:
        """Whether an earlier request with the same idempotency key has done it."""
        return "idempotent-replayed" in self.headers


class Refused(Exception):
    """The JSON API answered with a problem."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.content.get("code"))
        self.answer = answer

    @property
    def code(self) -> str:
        """The code of the problem."""
        return str(self.answer.content["code"])

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that the page needs as well: when to ask again."""
        return {name: value for name, value in self.answer.headers.items() if name == "retry-after"}

    def saying(self, sentence: str) -> "Refused":
        """Return the same refusal with other words."""
        content = {name: value for name, value in self.answer.content.items() if name != "errors"}
        return Refused(replace(self.answer, content={**content, "detail": sentence}))

    @property
    def sentence(self) -> str:
        """What the problem says to people: its wrong fields, its detail or its title."""
        content = self.answer.content
        faults = " ".join(fault["detail"] for fault in content.get("errors", ()))
        return faults or content.get("detail") or f"{content['title']}."


class JsonApi:
    """The JSON API, asked by `principal` within the request of a browser."""

    def __init__(self, request: Request, principal: Principal) -> None:
        self._request = request
        self._principal = principal

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the object at `path`, below the prefix of the API. Raises Refused for a problem."""
        return await self._object("GET", path, query=query)

    async def find(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the object at `path`; None if the principal may see none there. Raises Refused for other problems."""
        answer = await self.ask("GET", path, query=query)
        if answer.status in {403, 404}:
            return None
        return _unless_refused(answer)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> dict[str, Any]:
        """Do what a POST to `path` does, once for each idempotency `key`. Raises Refused for a problem."""
        return await self._object("POST", path, body=body, key=key)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a PATCH of `path` does. Raises Refused for a problem."""
        return await self._object("PATCH", path, body=body)

    async def delete(self, path: str) -> None:
        """Do what a DELETE of `path` does. Raises Refused for a problem."""
        await self._object("DELETE", path)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Return what the API answers."""
        content = b"" if body is None else orjson.dumps(body)
        headers = [(b"content-type", b"application/json")] if body is not None else []
        if key is not None:
            headers.append((b"idempotency-key", key.encode("ascii", "replace")))
        scope = self._scope(method, PREFIX + path, urlencode(query or {}), headers)
        status, parts, received = 0, bytearray(), Headers()

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, received
            if message["type"] == "http.response.start":
                status, received = message["status"], Headers(raw=message["headers"])
            else:
                parts.extend(message.get("body", b""))

        try:
            await self._request.app.router(scope, receive, send)
        except HTTPException:
            # This version has no such operation.
            return Answer(HTTPStatus.NOT_FOUND, {"code": Code.NOT_FOUND, "title": KINDS[Code.NOT_FOUND].title})
        return Answer(status, orjson.loads(parts) if parts else {}, received)

    async def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return _unless_refused(await self.ask(method, path, **options))

    def _scope(self, method: str, path: str, query: str, headers: list[tuple[bytes, bytes]]) -> Scope:
        common = {name: self._request.scope[name] for name in _COMMON if name in self._request.scope}
        own = {
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": headers,
        }
        return authenticated_scope({**common, **own}, self._principal)


def _unless_refused(answer: Answer) -> dict[str, Any]:
    if not answer.is_done:
        raise Refused(answer)
    return answer.content
