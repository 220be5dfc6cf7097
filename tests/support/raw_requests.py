"""Requests as bytes, for an API in the real server, and what has become of them."""

import json

from tests.support.api_client import RunningApi, added, order
from tests.support.raw_http import RawResponse
from tests.support.stored import row_counts

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
# Seconds; the least that a busy machine keeps apart from "at once".
TIMEOUT_S = 1.5


async def payment_body(api: RunningApi) -> bytes:
    async with api.user() as user:
        return json.dumps(order(await added(user))).encode()


def post(api: RunningApi, *lines: bytes, path: bytes = b"/api/v1/payments") -> bytes:
    """Return the head of a POST of user 1, without its last empty line."""
    token = api.user().headers["Authorization"].encode()
    head = (b"POST " + path + b" HTTP/1.1", b"Host: x", b"Content-Type: application/json", b"Authorization: " + token)
    return b"\r\n".join((*head, *lines)) + b"\r\n\r\n"


async def payments_count(api: RunningApi) -> int:
    return (await row_counts(api.database)).get("payments", 0)


def statuses(responses: list[RawResponse]) -> list[int]:
    return [response.status for response in responses]
