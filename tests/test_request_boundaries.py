"""Where a request ends: no body is read as a request, and each request has its own answer. Raw requests."""

import pytest

from tests.support.api_client import RunningApi
from tests.support.raw_http import connected, sent
from tests.support.raw_requests import HIDDEN, payment_body, payments_count, post, statuses

pytest_plugins = ["tests.support.served_fixtures"]

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


# -- a body is never read as a request


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: Upgrade", b"Upgrade: foo"),
        (b"connection: keep-alive, upgrade", b"UPGRADE: websocket"),
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        (b"Upgrade: foo", b"Connection: Upgrade", b"Upgrade: websocket"),
        (b"Upgrade:foo", b"Connection:Upgrade"),
    ],
)
@pytest.mark.parametrize("hidden", [HIDDEN, b"\r\n" * 1_000 + HIDDEN])
async def test_the_body_of_an_offered_upgrade_is_a_body(
    served_api: RunningApi, lines: tuple[bytes, ...], hidden: bytes
) -> None:
    head = post(served_api, *lines, b"Content-Length: %d" % len(hidden))
    for packets in ((head + hidden,), (head, hidden)):
        (response,) = await sent(served_api.url, *packets, pause_s=0.02)
        assert (response.status, response.code) == (400, "malformed_request")


async def test_a_client_that_offers_an_upgrade_pays(served_api: RunningApi) -> None:
    body = await payment_body(served_api)
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: %d" % len(body))
    assert statuses(await sent(served_api.url, post(served_api, *lines) + body)) == [202]


async def test_a_chunked_body_may_look_like_requests(served_api: RunningApi) -> None:
    chunk = b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN)
    assert statuses(
        await sent(served_api.url, post(served_api, b"Transfer-Encoding: chunked") + chunk * 3 + b"0\r\n\r\n")
    ) == [400]


async def test_a_body_arrives_byte_by_byte(served_api: RunningApi) -> None:
    body = await payment_body(served_api)
    plain = post(served_api, b"Content-Length: %d" % len(body)) + body
    chunked = post(served_api, b"Transfer-Encoding: chunked") + b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    for request in (plain, chunked + b"0\r\nTrailer: 1\r\n\r\n"):
        async with connected(served_api.url) as connection:
            for byte in request:
                await connection.send(bytes((byte,)))
            (response,) = await connection.responses(1)
            assert response.status in {202, 409}


async def test_trailers_are_no_headers(served_api: RunningApi) -> None:
    authorization = served_api.user().headers["Authorization"].encode()
    trailer = b"0\r\nAuthorization: %b\r\nX-Correlation-ID: late\r\n\r\n" % authorization
    request = b"GET /api/v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    (response,) = await sent(served_api.url, request + trailer)
    assert (response.status, response.code) == (401, "invalid_token")
    assert response.header(b"x-correlation-id") != b"late"


# -- nothing refused leaves a row, and what was done is answered


@pytest.mark.parametrize("garbage", [b"}", b"\x00\x01", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"no request\r\n\r\n"])
async def test_a_request_is_answered_whatever_follows_it(served_api: RunningApi, garbage: bytes) -> None:
    body = await payment_body(served_api)
    first, second = await sent(served_api.url, post(served_api, b"Content-Length: %d" % len(body)) + body + garbage)
    assert (first.status, second.status, second.code) == (202, 400, "malformed_request")
    assert second.closes
    assert await payments_count(served_api) == 1


async def test_requests_in_one_packet_are_answered_in_order(served_api: RunningApi) -> None:
    paths = [b"/health", b"/nothing", b"/api/v1/payments"] * 30
    packet = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    assert statuses(await sent(served_api.url, packet)) == [200, 404, 401] * 30
