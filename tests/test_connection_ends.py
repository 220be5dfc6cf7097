"""How connections end: clients that do not send, go or do not read, and the shutdown. Real sockets."""

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from api.edge.http_protocol import HttpProtocol
from api.edge.new_connection import NewConnection
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, accepted, added, order, served
from tests.support.raw_http import ANSWER_S, connected, sent
from tests.support.raw_requests import HEALTH, TIMEOUT_S, payment_body, payments_count, post, statuses
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.served_fixtures"]

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


# -- who does not send, and who goes


@pytest.mark.parametrize("start", [b"G", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_arrive_is_408(served_api: RunningApi, start: bytes) -> None:
    async with connected(served_api.url) as connection:
        await connection.send(start)
        (response,) = await connection.until_closed()
    assert (response.status, response.code, response.closes) == (408, "request_timeout", True)


async def test_a_body_that_does_not_arrive_is_408_however_slowly_it_comes(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        await connection.send(post(served_api, b"Content-Length: 1000"))
        dripping = asyncio.create_task(_drip(connection.send))
        (response,) = await connection.until_closed()
        dripping.cancel()
    assert (response.status, response.code, response.closes) == (408, "request_timeout", True)
    assert response.json["instance"] == "/api/v1/payments"


async def _drip(send: Callable[[bytes], object]) -> None:
    while True:
        await send(b" ")  # type: ignore[misc]
        await asyncio.sleep(0.1)


async def test_a_silent_connection_is_closed_without_a_word(served_api: RunningApi) -> None:
    for start in (b"", b"\r\n\r\n"):
        async with connected(served_api.url) as connection:
            await connection.send(start)
            assert await connection.until_closed() == []


async def test_a_connection_stays_open_between_requests(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        for count in (1, 2):
            await connection.send(HEALTH)
            await connection.responses(count)
            await asyncio.sleep(TIMEOUT_S * 1.3)
        await connection.send(HEALTH)
        assert statuses(await connection.responses(3)) == [200, 200, 200]


async def test_an_empty_line_begins_no_request(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        for number in (1, 2):
            await connection.send(HEALTH + b"\r\n")
            assert statuses(await connection.responses(number)) == [200] * number
            # The connection is idle, and may be for longer than a request may take.
            await connection.send(b"\r\n")
            await asyncio.sleep(TIMEOUT_S + 0.3)


async def test_bodies_that_do_not_come_take_no_payer_the_place(served_api: RunningApi) -> None:
    body = await payment_body(served_api)
    start = (
        b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    held = [await asyncio.open_connection("127.0.0.1", int(served_api.url.rsplit(":", 1)[1])) for _ in range(60)]
    for _reader, writer in held:
        writer.write(start)
    await asyncio.sleep(0.1)
    assert statuses(await sent(served_api.url, post(served_api, b"Content-Length: %d" % len(body)) + body)) == [202]
    for _reader, writer in held:
        writer.close()


@pytest.mark.parametrize("pause_s", [0.3, 0.0])
async def test_a_client_that_hangs_up_gives_its_long_poll_back(served_api: RunningApi, pause_s: float) -> None:
    async with served_api.user() as user:
        payment = await accepted(user, order(await added(user)))
        token = user.headers["Authorization"].encode()
    poll = b"GET /api/v1/payments/%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nPrefer: wait=25\r\n\r\n"
    async with AsyncExitStack() as stack:
        for _ in range(20):
            connection = await stack.enter_async_context(connected(served_api.url))
            await connection.send(poll % (payment["id"].encode(), token))
        await asyncio.sleep(pause_s)
        if pause_s:
            assert await _waiters(served_api) == 20
    await eventually(lambda: _has_no_waiters(served_api), 5)


async def _waiters(served_api: RunningApi) -> float:
    async with served_api.client(base="") as anybody:
        text = (await anybody.get("/metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith("payments_waiters ")).split()[1])


async def _has_no_waiters(served_api: RunningApi) -> bool:
    return await _waiters(served_api) == 0


async def test_a_client_that_does_not_read_is_disconnected(make_settings: Callable[..., Settings]) -> None:
    runtime = open_runtime(make_settings())
    async with served(runtime, write_timeout_s=0.5) as served_api:
        received, whole = await _read_late(served_api, wanted=300)
    assert received < whole / 2
    await runtime.close()


async def _read_late(served_api: RunningApi, *, wanted: int) -> tuple[int, int]:
    """Ask for many large responses and read after two seconds: the bytes that came, and those of all responses."""
    async with served_api.client(base="") as anybody:
        size = len((await anybody.get("/openapi.json")).content)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", int(served_api.url.rsplit(":", 1)[1])))
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
    served_api: RunningApi, request_bytes: bytes
) -> None:
    gc.collect()
    gc.disable()
    try:
        for is_reset in (False, True):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_reset, 0))
                client.connect(("127.0.0.1", int(served_api.url.rsplit(":", 1)[1])))
                client.sendall(request_bytes)
                await eventually(_has_protocol)
                await asyncio.sleep(0.1)
            await eventually(lambda: not _has_protocol(), 5)
    finally:
        gc.enable()


def _has_protocol() -> bool:
    return any(isinstance(one, HttpProtocol | NewConnection) for one in gc.get_objects())


# -- the end


async def test_at_shutdown_every_connection_gets_what_it_can(served_api: RunningApi, stop: asyncio.Event) -> None:
    body = await payment_body(served_api)
    async with (
        connected(served_api.url) as silent,
        connected(served_api.url) as half_head,
        connected(served_api.url) as half_body,
        connected(served_api.url) as upgrade,
        connected(served_api.url) as waiting,
    ):
        await half_head.send(b"GET /hea")
        await half_body.send(post(served_api, b"Content-Length: 100"))
        offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"
        await upgrade.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n" + offer)
        await waiting.send(post(served_api, b"Prefer: wait=25", b"Content-Length: %d" % len(body)) + body)
        await eventually(lambda: _is_pending(served_api))
        stop.set()
        assert await silent.until_closed() == []
        for connection, status in ((half_head, 503), (half_body, 503), (upgrade, 404), (waiting, 202)):
            (response,) = await connection.until_closed()
            assert response.status == status
            assert response.closes == (status != 404)


async def _is_pending(served_api: RunningApi) -> bool:
    return await payments_count(served_api) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /openapi.json HTTP/1.0\r\n\r\n"],
)
async def test_a_client_that_does_not_read_its_last_response_does_not_hold_up_the_shutdown(
    served_api: RunningApi, stop: asyncio.Event, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.connect(("127.0.0.1", int(served_api.url.rsplit(":", 1)[1])))
        client.sendall(request_bytes)
        await eventually(_has_response)
        stop.set()
        await eventually(lambda: not _has_protocol(), 30)
    # Uvicorn gave up on none of them.
    assert "graceful shutdown exceeded" not in caplog.text


def _has_response() -> bool:
    return any(
        isinstance(one, HttpProtocol) and one.cycle is not None and one.cycle.response_complete
        for one in gc.get_objects()
    )
