"""The bounds of requests: heads, bodies, and the memory of those that have not arrived whole. Raw requests."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from api.edge.arrival import ARRIVAL_BYTES_MAX
from api.edge.framing import BODY_BYTES_MAX
from api.edge.unread import HEAD_BYTES_MAX, HEADER_LINES_MAX
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, served
from tests.support.raw_http import connected, sent
from tests.support.raw_requests import TIMEOUT_S, payment_body, payments_count, post, statuses

pytest_plugins = ["tests.support.served_fixtures"]

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * HEAD_BYTES_MAX,
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * (HEAD_BYTES_MAX // 6),
        b"GET /health?" + b"a" * HEAD_BYTES_MAX,
        b"A" * (HEAD_BYTES_MAX + 1),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_head_above_the_limit_is_431(served_api: RunningApi, head: bytes, end: bytes) -> None:
    (response,) = await sent(served_api.url, head + end)
    assert (response.status, response.code, response.closes) == (431, "headers_too_large", True)


async def test_a_head_up_to_the_limit_is_read(served_api: RunningApi) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: "
    end = b"\r\n\r\n"
    assert statuses(await sent(served_api.url, head.ljust(HEAD_BYTES_MAX - len(end), b"a") + end)) == [200]


async def test_header_lines_are_counted(served_api: RunningApi) -> None:
    for count, status in ((HEADER_LINES_MAX, 200), (HEADER_LINES_MAX + 1, 431)):
        lines = b"Host: x\r\n" + b"a:\r\n" * (count - 1)
        assert statuses(await sent(served_api.url, b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")) == [status]


async def test_slow_requests_hold_a_bounded_memory_and_the_oldest_are_refused(
    make_settings: Callable[..., Settings],
) -> None:
    held_bytes = HEAD_BYTES_MAX - 1_024
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: ".ljust(held_bytes, b"a")
    above = 3
    runtime = open_runtime(make_settings())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runtime.close)
        served_api = await stack.enter_async_context(served(runtime, asyncio.Event()))
        body = await payment_body(served_api)
        held = []
        for _ in range(ARRIVAL_BYTES_MAX // held_bytes + above):
            connection = await stack.enter_async_context(connected(served_api.url))
            await connection.send(head)
            held.append(connection)
        for oldest in held[:above]:
            (response,) = await oldest.until_closed()
            assert (response.status, response.code, response.closes) == (503, "overloaded", True)
            assert response.header(b"retry-after")
        # A payer whose request comes in two packets pays.
        payer = await stack.enter_async_context(connected(served_api.url))
        await payer.send(post(served_api, b"Content-Length: %d" % len(body)))
        await asyncio.sleep(0.01)
        await payer.send(body)
        assert statuses(await payer.responses(1)) == [202]


async def test_a_client_that_goes_on_sending_reads_its_431(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        for _ in range(20):
            await connection.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 2**18)
        assert statuses(await connection.until_closed()) == [431]


@pytest.mark.parametrize("lines", [(b"Content-Length: 8000000",), (b"Transfer-Encoding: chunked",)])
async def test_a_client_that_goes_on_sending_reads_its_413(served_api: RunningApi, lines: tuple[bytes, ...]) -> None:
    chunk = b"40000\r\n" + b" " * 2**18 + b"\r\n"
    async with connected(served_api.url) as connection:
        await connection.send(post(served_api, *lines))
        for _ in range(40):
            await connection.send(chunk)
        assert statuses(await connection.until_closed()) == [413]


@pytest.mark.parametrize("path", [b"/api/v1/payments", b"/nothing", b"/api/v1/payment-methods"])
async def test_a_body_above_the_limit_is_413_and_closes(served_api: RunningApi, path: bytes) -> None:
    body = b" " * (BODY_BYTES_MAX + 1)
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9_000],) * 8) + b"0\r\n\r\n"
    for request in (
        post(served_api, b"Content-Length: %d" % len(body), path=path) + body,
        post(served_api, b"Content-Length: %d" % 10**12, path=path),
        post(served_api, b"Content-Length: %d" % len(body), b"Expect: 100-continue", path=path),
        post(served_api, b"Transfer-Encoding: chunked", path=path) + chunked,
    ):
        (response,) = await sent(served_api.url, request)
        assert (response.status, response.code, response.closes) == (413, "body_too_large", True)
        assert response.json["instance"].encode() == path
    assert await payments_count(served_api) == 0


async def test_what_is_refused_counts_for_the_rate_limit(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings(rate_limit_user="3/minute", request_timeout_s=TIMEOUT_S))
    async with served(runtime) as served_api:
        large = post(served_api, b"Content-Length: %d" % (BODY_BYTES_MAX + 1))
        answers = [response for _ in range(5) for response in await sent(served_api.url, large)]
        assert statuses(answers) == [413, 413, 413, 429, 429]
        assert all(answer.closes and answer.header(b"ratelimit") for answer in answers)
    await runtime.close()


async def test_chunks_of_one_byte_and_extensions_are_bounded(served_api: RunningApi) -> None:
    for chunk in (b"1\r\na\r\n", b"1;" + b"x" * 1_000 + b"\r\na\r\n"):
        (response,) = await sent(
            served_api.url, post(served_api, b"Transfer-Encoding: chunked") + chunk * (500_000 // len(chunk))
        )
        assert response.code == "body_too_large"


async def test_a_body_up_to_the_limit_is_read(served_api: RunningApi) -> None:
    body = (await payment_body(served_api)).ljust(BODY_BYTES_MAX)
    assert statuses(await sent(served_api.url, post(served_api, b"Content-Length: %d" % len(body)) + body)) == [202]
