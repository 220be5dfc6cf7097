"""Clients that have gone before their body is read: nothing is done, and nothing is a defect."""

from typing import cast

import httpx
import pytest
from starlette.types import Message
from structlog.testing import capture_logs

from api.paths import PLATFORM_PREFIX, PREFIX
from tests.support.api_client import RunningApi
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]

GONE: Message = {"type": "http.disconnect"}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "path",
    [
        f"{PREFIX}/payments",
        f"{PREFIX}/payment-methods",
        f"{PREFIX}/webhooks/payment/paypal_mock",
        f"{PLATFORM_PREFIX}/payments",
        "/approve/a-token",
    ],
)
async def test_a_client_that_has_gone_before_its_body_is_read_is_no_defect(running_api: RunningApi, path: str) -> None:
    user = running_api.user()
    headers = [(b"authorization", user.headers["authorization"].encode())]
    headers.append(
        (b"content-type", b"application/x-www-form-urlencoded" if "approve" in path else b"application/json")
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return GONE

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "scheme": "http",
    }  # fmt: skip
    before = await row_counts(running_api.database)
    with capture_logs() as logs:
        await cast("httpx.ASGITransport", running_api.transport).app(scope, receive, send)
    assert 400 <= sent[0]["status"] < 500
    assert {"http.defect", "http.unexpected_error"}.isdisjoint(line["event"] for line in logs)
    assert await row_counts(running_api.database) == before
