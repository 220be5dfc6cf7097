"""Which headers an API really sends, beside those that its OpenAPI document describes."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from api.problems import PROBLEM_TYPE
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, opened

type Operation = tuple[str, str, str]
"""A method, a path as it is described, and the status of an answer."""
type Sent = dict[Operation, set[str]]
"""The names of the headers that came with all answers of an operation."""

# They are part of every message, and OpenAPI has them elsewhere or not at all.
OF_MESSAGES = {"content-length", "content-type"}
# A client that never comes to its limits, and is told of them.
LIMITS = {"rate_limit_user": "100000/minute", "rate_limit_address": "100000/minute"}


class Recording(httpx.AsyncBaseTransport):
    """A transport that keeps which headers came with which status of which operation."""

    def __init__(self, inner: httpx.AsyncBaseTransport, document: dict[str, Any]) -> None:
        self.sent: Sent = defaultdict(set)
        self._inner = inner
        # Paths without parameters first: `/rules/test` is not the rule `test`.
        self._paths = sorted(document["paths"], key=lambda path: path.count("{"))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        found = next(path for path in self._paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path))
        names = {name.lower() for name in answer.headers} - OF_MESSAGES
        self.sent[request.method.lower(), found, str(answer.status_code)] |= names
        return answer


@asynccontextmanager
async def recorded(settings: Settings, document: dict[str, Any]) -> AsyncIterator[tuple[RunningApi, Sent]]:
    """A running API, and what it has sent so far."""
    runtime = open_runtime(settings)
    try:
        async with opened(runtime) as running_api:
            recording = Recording(running_api.transport, document)
            running_api.transport = recording
            yield running_api, recording.sent
    finally:
        await runtime.close()


def described(document: dict[str, Any]) -> Iterator[tuple[Operation, dict[str, Any], set[str]]]:
    """Every response of every operation, with the names of its headers."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                yield (method, path, status), response, {name.lower() for name in response["headers"]}


def is_problem(response: dict[str, Any]) -> bool:
    return PROBLEM_TYPE in response.get("content", {})
