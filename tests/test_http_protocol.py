"""The connection: what bytes a client may send, and what each of them gets. Real sockets, raw requests."""

import asyncio
import contextlib
import gc
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from time import monotonic

import pytest

from api.edge.arrival import ARRIVAL_BYTES_MAX
from api.edge.framing import BODY_BYTES_MAX
from api.edge.http_protocol import HttpProtocol
from api.edge.new_connection import NewConnection
from api.edge.unread import HEAD_BYTES_MAX, HEADER_LINES_MAX
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, accepted, added, order, row_counts, served
from tests.support.raw_http import ANSWER_S, RawResponse, connected, sent
from tests.support.waiting import eventually

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
# Seconds; the least that a busy machine keeps apart from "at once".
TIMEOUT_S = 1.5


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(request_timeout_s=TIMEOUT_S, accept_queue_max=20)


@pytest.fixture
async def stop() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def api(settings: Settings, stop: asyncio.Event) -> AsyncIterator[RunningApi]:
    """The API in the real server."""
    runtime = open_runtime(settings)
    started: asyncio.Future[RunningApi] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def hold() -> None:
        async with served(runtime, stop) as running_api:
            started.set_result(running_api)
            await left.wait()

    holding = asyncio.create_task(hold())
    yield await started
    left.set()
    await holding
    await runtime.close()


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
    api: RunningApi, lines: tuple[bytes, ...], hidden: bytes
) -> None:
    head = post(api, *lines, b"Content-Length: %d" % len(hidden))
    for packets in ((head + hidden,), (head, hidden)):
        (response,) = await sent(api.url, *packets, pause_s=0.02)
        assert (response.status, response.code) == (400, "malformed_request")


async def test_a_client_that_offers_an_upgrade_pays(api: RunningApi) -> None:
    body = await payment_body(api)
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: %d" % len(body))
    assert statuses(await sent(api.url, post(api, *lines) + body)) == [202]


async def test_a_chunked_body_may_look_like_requests(api: RunningApi) -> None:
    chunk = b"%x\r\n%b\r\n" % (len(HIDDEN), HIDDEN)
    assert statuses(await sent(api.url, post(api, b"Transfer-Encoding: chunked") + chunk * 3 + b"0\r\n\r\n")) == [400]


async def test_a_body_arrives_byte_by_byte(api: RunningApi) -> None:
    body = await payment_body(api)
    plain = post(api, b"Content-Length: %d" % len(body)) + body
    chunked = post(api, b"Transfer-Encoding: chunked") + b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    for request in (plain, chunked + b"0\r\nTrailer: 1\r\n\r\n"):
        async with connected(api.url) as connection:
            for byte in request:
                await connection.send(bytes((byte,)))
            (response,) = await connection.responses(1)
            assert response.status in {202, 409}


async def test_trailers_are_no_headers(api: RunningApi) -> None:
    authorization = api.user().headers["Authorization"].encode()
    trailer = b"0\r\nAuthorization: %b\r\nX-Correlation-ID: late\r\n\r\n" % authorization
    request = b"GET /api/v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    (response,) = await sent(api.url, request + trailer)
    assert (response.status, response.code) == (401, "invalid_token")
    assert response.header(b"x-correlation-id") != b"late"


# -- nothing refused leaves a row, and what was done is answered


@pytest.mark.parametrize("garbage", [b"}", b"\x00\x01", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"no request\r\n\r\n"])
async def test_a_request_is_answered_whatever_follows_it(api: RunningApi, garbage: bytes) -> None:
    body = await payment_body(api)
    first, second = await sent(api.url, post(api, b"Content-Length: %d" % len(body)) + body + garbage)
    assert (first.status, second.status, second.code) == (202, 400, "malformed_request")
    assert second.closes
    assert await payments_count(api) == 1


async def test_requests_in_one_packet_are_answered_in_order(api: RunningApi) -> None:
    paths = [b"/health", b"/nothing", b"/api/v1/payments"] * 30
    packet = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    assert statuses(await sent(api.url, packet)) == [200, 404, 401] * 30


# -- bounds


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
async def test_a_head_above_the_limit_is_431(api: RunningApi, head: bytes, end: bytes) -> None:
    (response,) = await sent(api.url, head + end)
    assert (response.status, response.code, response.closes) == (431, "headers_too_large", True)


async def test_a_head_up_to_the_limit_is_read(api: RunningApi) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: "
    end = b"\r\n\r\n"
    assert statuses(await sent(api.url, head.ljust(HEAD_BYTES_MAX - len(end), b"a") + end)) == [200]


async def test_header_lines_are_counted(api: RunningApi) -> None:
    for count, status in ((HEADER_LINES_MAX, 200), (HEADER_LINES_MAX + 1, 431)):
        lines = b"Host: x\r\n" + b"a:\r\n" * (count - 1)
        assert statuses(await sent(api.url, b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")) == [status]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /health HTTP/1.1", 200),
        (b"GET http://x/health HTTP/1.1", 200),
        (b"GET HTTPS://x:1/health?a=http://y HTTP/1.1", 200),
        # Without a path the target is the root.
        (b"GET http://x HTTP/1.1", 307),
        (b"GET http://x?a HTTP/1.1", 307),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"GET /health#a HTTP/1.1", 400),
        (b"GET  /health HTTP/1.1", 400),
        (b"GET /health  HTTP/1.1", 400),
        (b"GET /health HTTP/1.1 ", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\tb HTTP/1.1", 400),
        (b"GET\t/health HTTP/1.1", 400),
        (b"GET /health HTTP/1.1\t", 400),
        (b"GET /health HTTP/11", 400),
        (b"GET /health RTSP/1.0", 400),
        (b"SOURCE /health ICE/1.0", 400),
        (b"GET /health", 400),
        (b"GET HTTP/1.1", 400),
        (b"GET :///x HTTP/1.1", 400),
        (b"GET http:// HTTP/1.1", 400),
        (b"get /health HTTP/1.1", 400),
    ],
)
async def test_a_request_line_is_read_strictly(api: RunningApi, line: bytes, status: int) -> None:
    (response,) = await sent(api.url, line + b"\r\nHost: x\r\n\r\n")
    assert response.status == status


async def test_slow_requests_hold_a_bounded_memory_and_the_oldest_are_refused(
    make_settings: Callable[..., Settings],
) -> None:
    held_bytes = HEAD_BYTES_MAX - 1_024
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: ".ljust(held_bytes, b"a")
    above = 3
    runtime = open_runtime(make_settings())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runtime.close)
        api = await stack.enter_async_context(served(runtime, asyncio.Event()))
        body = await payment_body(api)
        held = []
        for _ in range(ARRIVAL_BYTES_MAX // held_bytes + above):
            connection = await stack.enter_async_context(connected(api.url))
            await connection.send(head)
            held.append(connection)
        for oldest in held[:above]:
            (response,) = await oldest.until_closed()
            assert (response.status, response.code, response.closes) == (503, "overloaded", True)
            assert response.header(b"retry-after")
        # A payer whose request comes in two packets pays.
        payer = await stack.enter_async_context(connected(api.url))
        await payer.send(post(api, b"Content-Length: %d" % len(body)))
        await asyncio.sleep(0.01)
        await payer.send(body)
        assert statuses(await payer.responses(1)) == [202]


async def test_a_client_that_goes_on_sending_reads_its_431(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        for _ in range(20):
            await connection.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 2**18)
        assert statuses(await connection.until_closed()) == [431]


@pytest.mark.parametrize("lines", [(b"Content-Length: 8000000",), (b"Transfer-Encoding: chunked",)])
async def test_a_client_that_goes_on_sending_reads_its_413(api: RunningApi, lines: tuple[bytes, ...]) -> None:
    chunk = b"40000\r\n" + b" " * 2**18 + b"\r\n"
    async with connected(api.url) as connection:
        await connection.send(post(api, *lines))
        for _ in range(40):
            await connection.send(chunk)
        assert statuses(await connection.until_closed()) == [413]


@pytest.mark.parametrize("path", [b"/api/v1/payments", b"/nothing", b"/api/v1/payment-methods"])
async def test_a_body_above_the_limit_is_413_and_closes(api: RunningApi, path: bytes) -> None:
    body = b" " * (BODY_BYTES_MAX + 1)
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9_000],) * 8) + b"0\r\n\r\n"
    for request in (
        post(api, b"Content-Length: %d" % len(body), path=path) + body,
        post(api, b"Content-Length: %d" % 10**12, path=path),
        post(api, b"Content-Length: %d" % len(body), b"Expect: 100-continue", path=path),
        post(api, b"Transfer-Encoding: chunked", path=path) + chunked,
    ):
        (response,) = await sent(api.url, request)
        assert (response.status, response.code, response.closes) == (413, "body_too_large", True)
        assert response.json["instance"].encode() == path
    assert await payments_count(api) == 0


async def test_what_is_refused_counts_for_the_rate_limit(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings(rate_limit_user="3/minute", request_timeout_s=TIMEOUT_S))
    async with served(runtime) as api:
        large = post(api, b"Content-Length: %d" % (BODY_BYTES_MAX + 1))
        answers = [response for _ in range(5) for response in await sent(api.url, large)]
        assert statuses(answers) == [413, 413, 413, 429, 429]
        assert all(answer.closes and answer.header(b"ratelimit") for answer in answers)
    await runtime.close()


async def test_chunks_of_one_byte_and_extensions_are_bounded(api: RunningApi) -> None:
    for chunk in (b"1\r\na\r\n", b"1;" + b"x" * 1_000 + b"\r\na\r\n"):
        (response,) = await sent(api.url, post(api, b"Transfer-Encoding: chunked") + chunk * (500_000 // len(chunk)))
        assert response.code == "body_too_large"


async def test_a_body_up_to_the_limit_is_read(api: RunningApi) -> None:
    body = (await payment_body(api)).ljust(BODY_BYTES_MAX)
    assert statuses(await sent(api.url, post(api, b"Content-Length: %d" % len(body)) + body)) == [202]


# -- what is no HTTP/1.1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /\r\n\r\n",
        b"BAD\0\r\n",
        b"get / HTTP",
        b"OPTIONS /health RTSP/1.0\r\nHost: x\r\n\r\n",
        b"SOURCE /health ICE/1.0\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: []\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %4g\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x:80:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x:y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_is_400_at_once_as_a_problem_document(api: RunningApi, request_bytes: bytes) -> None:
    async with connected(api.url) as connection:
        await connection.send(request_bytes)
        async with asyncio.timeout(TIMEOUT_S - 0.3):
            (response,) = await connection.responses(1)
    assert (response.status, response.code, response.closes) == (400, "malformed_request", True)


@pytest.mark.parametrize(
    "host", [b"", b"x:", b"x:80", b"[::1]:80", b"[v1.a:b]", b"%C3%A9.example", b"127.0.0.1", b"a_b-c.example."]
)
async def test_a_valid_host_is_taken(api: RunningApi, host: bytes) -> None:
    assert statuses(await sent(api.url, b"GET /health HTTP/1.1\r\nHost: %b\r\n\r\n" % host)) == [200]


async def test_empty_lines_before_a_request_are_ignored(api: RunningApi) -> None:
    assert statuses(await sent(api.url, b"\r\n" * 100_000 + HEALTH, b"\r", b"\n" + HEALTH, pause_s=0.05)) == [200, 200]


async def test_http_1_0_needs_no_host(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert statuses(await connection.until_closed()) == [200]


async def test_expect_100_continue_asks_for_the_body(api: RunningApi) -> None:
    body = await payment_body(api)
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Expect: 100-continue", b"Content-Length: %d" % len(body)))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        await connection.send(body)
        assert statuses(await connection.responses(1)) == [202]


async def test_http_1_0_knows_no_100_continue(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(b"POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.1)
        await connection.send(b"{}")
        assert statuses(await connection.until_closed()) == [404]


async def test_a_head_in_pieces_is_found_wherever_it_is_cut(api: RunningApi) -> None:
    for cut in range(len(HEALTH)):
        async with connected(api.url) as connection:
            await connection.send(HEALTH[:cut])
            await asyncio.sleep(0.001)
            await connection.send(HEALTH[cut:] + HEALTH)
            assert statuses(await connection.responses(2)) == [200, 200]


# -- HEAD


async def test_head_is_answered_like_get_without_a_body(api: RunningApi) -> None:
    async with api.user() as user, api.client(base="") as anybody:
        payment = await accepted(user, order(await added(user)))
        for client, path in (
            (anybody, "/health"),
            (anybody, "/health/ready"),
            (anybody, "/openapi.json"),
            (anybody, "/nothing"),
            (user, "/payments"),
            (user, f"/payments/{payment['id']}"),
            (user, f"/payments/{payment['id']}/status"),
            (user, f"/payments/{payment['id']}/cancel"),
        ):
            head, got = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            if got.status_code == 200:
                assert _comparable(head.headers) == _comparable(got.headers)
                assert int(head.headers["content-length"]) > 0
        began = monotonic()
        answer = await user.head(f"/payments/{payment['id']}", headers={"Prefer": "wait=25"})
        assert (answer.status_code, monotonic() - began < 5) == (200, True)


def _comparable(headers: Mapping[str, str]) -> dict[str, str]:
    # The figures in /health and /health/ready change, and their length with them.
    changing = {"x-correlation-id", "date", "retry-after", "content-length"}
    return {name: value for name, value in headers.items() if name not in changing}


# -- who does not send, and who goes


@pytest.mark.parametrize("start", [b"G", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_arrive_is_408(api: RunningApi, start: bytes) -> None:
    async with connected(api.url) as connection:
        await connection.send(start)
        (response,) = await connection.until_closed()
    assert (response.status, response.code, response.closes) == (408, "request_timeout", True)


async def test_a_body_that_does_not_arrive_is_408_however_slowly_it_comes(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        await connection.send(post(api, b"Content-Length: 1000"))
        dripping = asyncio.create_task(_drip(connection.send))
        (response,) = await connection.until_closed()
        dripping.cancel()
    assert (response.status, response.code, response.closes) == (408, "request_timeout", True)
    assert response.json["instance"] == "/api/v1/payments"


async def _drip(send: Callable[[bytes], object]) -> None:
    while True:
        await send(b" ")  # type: ignore[misc]
        await asyncio.sleep(0.1)


async def test_a_silent_connection_is_closed_without_a_word(api: RunningApi) -> None:
    for start in (b"", b"\r\n\r\n"):
        async with connected(api.url) as connection:
            await connection.send(start)
            assert await connection.until_closed() == []


async def test_a_connection_stays_open_between_requests(api: RunningApi) -> None:
    async with connected(api.url) as connection:
        for count in (1, 2):
            await connection.send(HEALTH)
            await connection.responses(count)
            await asyncio.sleep(TIMEOUT_S * 1.3)
        await connection.send(HEALTH)
        assert statuses(await connection.responses(3)) == [200, 200, 200]


async def test_bodies_that_do_not_come_take_no_payer_the_place(api: RunningApi) -> None:
    body = await payment_body(api)
    start = (
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    held = [await asyncio.open_connection("127.0.0.1", int(api.url.rsplit(":", 1)[1])) for _ in range(60)]
    for _reader, writer in held:
        writer.write(start)
    await asyncio.sleep(0.1)
    assert statuses(await sent(api.url, post(api, b"Content-Length: %d" % len(body)) + body)) == [202]
    for _reader, writer in held:
        writer.close()


@pytest.mark.parametrize("pause_s", [0.3, 0.0])
async def test_a_client_that_hangs_up_gives_its_long_poll_back(api: RunningApi, pause_s: float) -> None:
    async with api.user() as user:
        payment = await accepted(user, order(await added(user)))
        token = user.headers["Authorization"].encode()
    poll = b"GET /api/v1/payments/%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nPrefer: wait=25\r\n\r\n"
    async with AsyncExitStack() as stack:
        for _ in range(20):
            connection = await stack.enter_async_context(connected(api.url))
            await connection.send(poll % (payment["id"].encode(), token))
        await asyncio.sleep(pause_s)
        if pause_s:
            assert await _waiters(api) == 20
    await eventually(lambda: _has_no_waiters(api), 5)


async def _waiters(api: RunningApi) -> float:
    async with api.client(base="") as anybody:
        text = (await anybody.get("/metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith("payments_waiters ")).split()[1])


async def _has_no_waiters(api: RunningApi) -> bool:
    return await _waiters(api) == 0


async def test_a_client_that_does_not_read_is_disconnected(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings())
    async with served(runtime, write_timeout_s=0.5) as api:
        received, whole = await _read_late(api, wanted=300)
    assert received < whole / 2
    await runtime.close()


async def _read_late(api: RunningApi, *, wanted: int) -> tuple[int, int]:
    """Ask for many large responses and read after two seconds: the bytes that came, and those of all responses."""
    async with api.client(base="") as anybody:
        size = len((await anybody.get("/openapi.json")).content)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", int(api.url.rsplit(":", 1)[1])))
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * wanted)
        await asyncio.sleep(2)
        client.settimeout(ANSWER_S)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await asyncio.to_thread(client.recv, 2**20):
                received += len(data)
    return received, wanted * size


@pytest.mark.parametrize("request_bytes", [b"", b"GET /heal", HEALTH, b"BAD\r\n\r\n"])
async def test_a_connection_that_is_gone_leaves_nothing_for_the_garbage_collection(
    api: RunningApi, request_bytes: bytes
) -> None:
    gc.collect()
    gc.disable()
    try:
        for is_reset in (False, True):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_reset, 0))
                client.connect(("127.0.0.1", int(api.url.rsplit(":", 1)[1])))
                client.sendall(request_bytes)
                await eventually(_has_protocol)
                await asyncio.sleep(0.1)
            await eventually(lambda: not _has_protocol(), 5)
    finally:
        gc.enable()


def _has_protocol() -> bool:
    return any(isinstance(one, HttpProtocol | NewConnection) for one in gc.get_objects())


# -- the end


async def test_at_shutdown_every_connection_gets_what_it_can(api: RunningApi, stop: asyncio.Event) -> None:
    body = await payment_body(api)
    async with (
        connected(api.url) as silent,
        connected(api.url) as half_head,
        connected(api.url) as half_body,
        connected(api.url) as upgrade,
        connected(api.url) as waiting,
    ):
        await half_head.send(b"GET /hea")
        await half_body.send(post(api, b"Content-Length: 100"))
        offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"
        await upgrade.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n" + offer)
        await waiting.send(post(api, b"Prefer: wait=25", b"Content-Length: %d" % len(body)) + body)
        await eventually(lambda: _is_pending(api))
        stop.set()
        assert await silent.until_closed() == []
        for connection, status in ((half_head, 503), (half_body, 503), (upgrade, 404), (waiting, 202)):
            (response,) = await connection.until_closed()
            assert response.status == status
            assert response.closes == (status != 404)


async def _is_pending(api: RunningApi) -> bool:
    return await payments_count(api) == 1
