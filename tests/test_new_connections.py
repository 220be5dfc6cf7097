"""Connections whose first request has not arrived whole: they are small, and they take no turn from those that pay."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from api.edge.http_protocol import HttpProtocol
from api.edge.new_connection import CHUNKED_HERE_BYTES_MAX, NewConnection
from bench.attack import NEW
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, order, served
from tests.support.raw_http import RawResponse, connected
from tests.support.waiting import eventually

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

TIMEOUT_S = 1.5


@pytest.fixture
async def api(make_settings: Callable[..., Settings]) -> AsyncIterator[RunningApi]:
    """The API in the real server."""
    runtime = open_runtime(make_settings(request_timeout_s=TIMEOUT_S))
    async with served(runtime) as running_api:
        yield running_api
    await runtime.close()


def alive(kind: type) -> int:
    return sum(isinstance(one, kind) for one in gc.get_objects())


def post(api: RunningApi, *lines: bytes) -> bytes:
    """Return the head of a POST of a payment by user 1."""
    token = api.user().headers["Authorization"].encode()
    head = (
        b"POST /api/v1/payments HTTP/1.1",
        b"Host: x",
        b"Content-Type: application/json",
        b"Authorization: " + token,
    )
    return b"\r\n".join((*head, *lines)) + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("kind", NEW)
async def test_a_request_that_does_not_arrive_holds_no_parser_and_no_task(api: RunningApi, kind: str) -> None:
    """Ten thousand of these are looked at in every garbage collection, while payers wait."""
    begin, drip = NEW[kind]
    async with AsyncExitStack() as stack:
        for _ in range(10):
            connection = await stack.enter_async_context(connected(api.url))
            for part in (begin, drip, drip):
                await connection.send(part)
        await eventually(lambda: alive(NewConnection) == 10)
        await asyncio.sleep(0.1)
        assert (alive(NewConnection), alive(HttpProtocol)) == (10, 0)


async def test_one_request_makes_a_connection_a_whole_one(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        for part in (b"GET /health HTTP/1.1\r\n", b"Host: x\r\n\r\n"):
            await connection.send(part)
            await asyncio.sleep(0.05)
        (response,) = await connection.responses(1)
        assert response.status == 200
        assert (alive(NewConnection), alive(HttpProtocol)) == (0, 1)


async def test_a_body_in_many_packets_is_paid(api: RunningApi) -> None:
    async with api.user() as user:
        body = json.dumps(order(await added(user))).encode().ljust(3 * CHUNKED_HERE_BYTES_MAX)
    thirds = [body[start : start + len(body) // 3] for start in range(0, len(body), len(body) // 3)]
    for head, parts in (
        (post(api, b"Content-Length: %d" % len(body)), thirds),
        # More than what waits for its end unread, and less.
        (post(api, b"Transfer-Encoding: chunked"), [*map(chunk, thirds), b"0\r\n\r\n"]),
        (post(api, b"Transfer-Encoding: chunked"), [chunk(body.strip()), b"0\r\n", b"\r\n"]),
    ):
        async with connected(api.url) as connection:
            for part in (head[:20], head[20:], *parts):
                await connection.send(part)
                await asyncio.sleep(0.02)
            (response,) = await connection.responses(1)
            assert response.status in {202, 409}


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"-1\r\n", b"1\r\naa\r\n", b"1\r\na\r\n\r\n"])
async def test_chunks_that_are_none_are_refused_at_once(api: RunningApi, garbage: bytes) -> None:
    async with connected(api.url) as connection:
        for part in (post(api, b"Transfer-Encoding: chunked"), chunk(b"{"), garbage):
            await connection.send(part)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(TIMEOUT_S - 0.3):
            (response,) = await connection.responses(1)
    assert (response.status, response.code, response.closes) == (400, "malformed_request", True)


# Who names their request is answered by the application, which knows the head only.
@pytest.mark.parametrize("lines", [(), (b"X-Correlation-ID: mine",)], ids=["plain", "named"])
async def test_who_was_asked_for_a_body_is_not_asked_again(api: RunningApi, lines: tuple[bytes, ...]) -> None:
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Expect: 100-continue", b"Content-Length: 2", *lines))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        assert await connection.line() == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_a_large_request_has_no_more_time_than_a_small_one(api: RunningApi) -> None:
    """Its bytes are read by another object from some size on, which does not begin to count again."""
    began = monotonic()
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Transfer-Encoding: chunked"))
        await asyncio.sleep(TIMEOUT_S / 2)
        await connection.send(chunk(b" " * 2 * CHUNKED_HERE_BYTES_MAX))
        (response,) = await connection.until_closed()
    assert response.status == 408
    assert monotonic() - began < 1.4 * TIMEOUT_S


async def late(api: RunningApi, *lines: bytes) -> RawResponse:
    """The answer to a payment whose body never comes."""
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Content-Length: 50", *lines) + b"{")
        (response,) = await connection.until_closed()
    return response


async def test_who_is_late_is_answered_as_the_application_would(api: RunningApi) -> None:
    """Whoever names their request is answered by it."""
    plain, named = await asyncio.gather(late(api), late(api, b"X-Correlation-ID: mine"))
    assert (plain.status, plain.code, plain.closes) == (408, "request_timeout", True)
    assert named.code == plain.code
    assert named.json["correlation_id"] == "mine" != plain.json["correlation_id"]
    assert {**plain.json, "correlation_id": "mine"} == named.json
    assert {name for name, _ in plain.headers} == {name for name, _ in named.headers} >= {b"date"}


async def test_what_arrives_after_the_last_answer_is_dropped(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Content-Length: 50") + b"{")
        await connection.responses(1)
        await connection.send(b"}" * 49 + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(await connection.until_closed()) == 1
    await eventually(lambda: alive(NewConnection) == 0)


@pytest.mark.parametrize(
    "lines",
    [
        (b"GET /health HTTP/1.1", b"Content-Length: 1"),
        (b"HEAD /api/v1/payments HTTP/1.1", b"Content-Length: 1"),
        (b"POST /api/v1/p%61yments HTTP/1.1", b"Content-Length: 1"),
        (b"POST http://x/ HTTP/1.1", b"Content-Length: 1"),
        (b"POST /approve/abc HTTP/1.1", b"Content-Length: 1"),
        (b"POST /x HTTP/1.0", b"Content-Length: 1"),
        (b"GET /x",),
    ],
    ids=lambda lines: lines[0].decode(),
)
async def test_whatever_is_late_is_408(api: RunningApi, lines: tuple[bytes, ...]) -> None:
    async with connected(api.url) as connection:
        end = b"\r\n\r\n" if len(lines) > 1 else b""
        await connection.send(b"\r\n".join((*lines, *([b"Host: x"] if end else []))) + end)
        assert await connection.line() == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_who_asks_for_the_head_of_an_answer_and_is_late_gets_no_more(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(b"HEAD /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        lines = [await connection.line()]
        while line := await connection.line():
            lines.append(line)
    assert lines[0] == b"HTTP/1.1 408 Request Timeout\r\n"
    assert lines[-1] == b"\r\n"


@pytest.mark.parametrize("path", [b"/approve/abc", b"/api/payments/approve/abc"])
async def test_a_customer_who_is_late_sees_a_page(api: RunningApi, path: bytes) -> None:
    async with connected(api.url) as connection:
        await connection.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        (response,) = await connection.until_closed()
    assert (response.status, response.header(b"content-type")) == (408, b"text/html; charset=utf-8")


async def test_who_is_late_with_the_head_is_told_the_date_too(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(b"GET /x")
        (response,) = await connection.until_closed()
    assert response.status == 408
    assert response.header(b"date")


async def test_a_refusal_names_the_path_that_the_client_asked_for(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings(request_timeout_s=TIMEOUT_S, root_path="/shop/pay"))
    async with served(runtime) as running_api:
        plain, named = await asyncio.gather(late(running_api), late(running_api, b"X-Correlation-ID: mine"))
    await runtime.close()
    assert plain.json["instance"] == named.json["instance"] == "/shop/pay/api/v1/payments"


async def test_with_cors_every_refusal_says_that_it_depends_on_the_origin(
    make_settings: Callable[..., Settings],
) -> None:
    runtime = open_runtime(make_settings(request_timeout_s=TIMEOUT_S, cors_origins=("https://shop.example",)))
    async with served(runtime) as running_api:
        plain, of_page = await asyncio.gather(late(running_api), late(running_api, b"Origin: https://shop.example"))
        async with connected(running_api.url) as connection:
            await connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n")
            (of_no_page,) = await connection.until_closed()
    await runtime.close()
    assert of_no_page.header(b"vary") is None
    assert plain.header(b"vary") == of_page.header(b"vary") == b"Origin"
    assert of_page.header(b"access-control-allow-origin") == b"https://shop.example"
