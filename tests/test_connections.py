"""Connections to receivers that are kept: what comes over them unasked is never believed, and who repeats what."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector
from aiohttp.client_proto import ResponseHandler

from shared.config.settings import Settings
from shared.upstream.connections import StrictConnection
from shared.webhooks.url_policy import AddressPolicy
from tests.support.delivery_pools import MakeSettings, World, running
from tests.support.raw_receivers import OK, RawReceiver, RawRequest, Script, raw_receiver, resetting, saying
from worker.deliveries.ssrf_guard import guarded_connector
from worker.deliveries.webhook import open_session, post

pytest_plugins = ["tests.support.delivery_fixtures"]

LOOPBACK = AddressPolicy(allowed=(ip_network("127.0.0.0/8"),), own_ports=frozenset())
FAILURE = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"
# Seconds in which bytes arrive on loopback.
ARRIVED_S = 0.1


def a_session() -> ClientSession:
    return open_session(guarded_connector(LOOPBACK), timeout_s=5, user_agent="payments/tests")


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with a_session() as opened:
        yield opened


async def status_of(session: ClientSession, shop: RawReceiver) -> int | None:
    return (await post(session, shop.url, headers={}, body=b"{}")).status


def saying_more_later(first: bytes, more: bytes, *, then_close: bool = False) -> Script:
    """Answer, and write more a moment later."""

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(ARRIVED_S / 2)
        writer.write(more)
        await writer.drain()
        if then_close:
            writer.close()

    return answer


# -- nothing is believed that was not asked for


@pytest.mark.parametrize(
    "unasked", [OK, b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n", b"\r\n", b"x", OK * 50]
)
@pytest.mark.parametrize("then_close", [False, True])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_received_anything_while_it_was_idle_is_never_used_again(
    run: Callable[[Coroutine[Any, Any, None]], None], unasked: bytes, then_close: bool
) -> None:
    """On both event loops: the worker runs on uvloop, whose transports are its own."""

    async def scenario() -> None:
        script = [saying_more_later(OK, unasked, then_close=then_close), saying(FAILURE), saying(OK)]
        async with raw_receiver(*script) as shop, a_session() as session:
            assert await status_of(session, shop) == 200
            await asyncio.sleep(ARRIVED_S)
            assert [await status_of(session, shop) for _ in range(3)] == [500, 200, 200]
            assert [request.connection for request in shop.requests] == [0, 1, 1, 1]

    run(scenario())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_waits_in_the_kernel_counts_as_received(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """The bytes have arrived, and the event loop has not looked yet."""

    async def scenario() -> None:
        sockets: list[int] = []

        async def first(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
            sockets.append(writer.get_extra_info("socket").fileno())
            writer.write(OK)

        async with raw_receiver(first, saying(FAILURE)) as shop, a_session() as session:
            assert await status_of(session, shop) == 200
            os.write(sockets[0], OK)
            assert await status_of(session, shop) == 500
            assert [request.connection for request in shop.requests] == [0, 1]

    run(scenario())


async def test_no_answer_is_taken_for_the_next_deliverys(world: World, make_settings: MakeSettings) -> None:
    """The receiver sends a second 200 after its first answer, and then answers 500 to every other delivery."""
    settings = make_settings(webhook_retry_schedule=())
    script = [saying_more_later(OK, OK), *[saying(FAILURE), saying(OK)] * 3]
    async with raw_receiver(*script) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        for status in ("delivered", *("exhausted", "delivered") * 3):
            [item] = await world.pay()
            await pool.offer([item])
            await world.until(status, [item])
            await asyncio.sleep(ARRIVED_S)
            [attempt] = await world.attempts(item)
            assert attempt.status_code == (200 if status == "delivered" else 500)


async def test_a_silent_connection_is_used_again_and_the_last_one_first(session: ClientSession) -> None:
    both = asyncio.Barrier(2)

    async def together(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await both.wait()
        writer.write(OK)

    async with raw_receiver(together, together, saying(OK)) as shop:
        await asyncio.gather(status_of(session, shop), status_of(session, shop))
        assert shop.connections == 2
        for _ in range(4):
            assert await status_of(session, shop) == 200
        last = [request.connection for request in shop.requests[2:]]
        assert len(set(last)) == 1
        assert shop.connections == 2


# -- repeating


def breaking_old_ones(how: Script) -> Script:
    """Answer the first request of a connection, and break it at the second."""
    seen: set[int] = set()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        is_old = request.connection in seen
        seen.add(request.connection)
        await (how if is_old else saying(OK))(request, writer)

    return answer


async def closing(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
    """End the connection without an answer."""
    writer.close()
    raise ConnectionResetError


@pytest.mark.parametrize("how", [resetting(), closing], ids=["reset", "closed"])
async def test_a_kept_connection_that_breaks_is_repeated_over_a_new_one_and_both_are_logged(
    world: World, settings: Settings, how: Script
) -> None:
    async with raw_receiver(breaking_old_ones(how)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        items = []
        for _ in range(2):
            items += await world.pay()
            await pool.offer(items[-1:])
            await world.until("delivered", items)
        assert [request.connection for request in shop.requests] == [0, 0, 1]
    assert len(await world.attempts(items[0])) == 1
    broken, repeated = await world.attempts(items[1])
    assert (broken.number, broken.status_code, repeated.number, repeated.status_code) == (1, None, 2, 200)
    assert broken.error.startswith("the connection broke (")
    assert "the request was repeated over a new one" in broken.error
    assert broken.url == repeated.url == shop.url
    assert repeated.started_at >= broken.started_at
    [_, row] = await world.rows(items)
    assert (row.retries, row.attempts_total, row.last_error) == (1, 2, None)


async def test_fifty_kept_connections_that_break_at_once_fail_no_delivery(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_retry_schedule=())
    async with raw_receiver(breaking_old_ones(resetting())) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        logged: list[int] = []
        for _ in range(2):
            items = await world.pay(60)
            await pool.offer(items)
            await world.until("delivered", items)
            logged += [len(await world.attempts(item)) for item in items]
    assert len(shop.requests) == sum(logged)
    assert set(logged) == {1, 2}


@pytest.mark.parametrize("how", [resetting(), closing], ids=["reset", "closed"])
async def test_a_new_connection_that_breaks_is_not_repeated(session: ClientSession, how: Script) -> None:
    async with raw_receiver(how) as shop:
        answer = await post(session, shop.url, headers={}, body=b"{}")
        assert (len(shop.requests), answer.repeats) == (1, None)


async def test_nothing_is_repeated_after_a_part_of_an_answer(session: ClientSession) -> None:
    async def partly(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 X\r\n")
        await writer.drain()
        await closing(request, writer)

    async with raw_receiver(saying(OK), partly) as shop:
        assert await status_of(session, shop) == 200
        answer = await post(session, shop.url, headers={}, body=b"{}")
        assert (answer.status, answer.is_whole, answer.repeats) == (500, False, None)
        assert [request.connection for request in shop.requests] == [0, 0]


async def test_nothing_is_repeated_after_a_second(session: ClientSession) -> None:
    async def late(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.1)
        await closing(request, writer)

    async with raw_receiver(saying(OK), late) as shop:
        assert await status_of(session, shop) == 200
        answer = await post(session, shop.url, headers={}, body=b"{}")
        assert (answer.status, answer.repeats, len(shop.requests)) == (None, None, 2)


async def test_the_repeat_has_what_is_left_of_the_timeout() -> None:
    async def silent(_request: RawRequest, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async with (
        raw_receiver(saying(OK), closing, silent) as shop,
        open_session(guarded_connector(LOOPBACK), timeout_s=0.5, user_agent="payments/tests") as session,
    ):
        assert await status_of(session, shop) == 200
        answer = await post(session, shop.url, headers={}, body=b"{}")
    assert (answer.error, answer.repeats is not None, len(shop.requests)) == ("no answer in time", True, 3)
    assert answer.duration_ms <= 600


# -- what is not public in aiohttp


def test_the_parts_of_aiohttp_that_are_not_public_are_still_there() -> None:
    """Without one of these, connections would be reused as aiohttp does it. Look at connections.py then."""
    assert aiohttp.__version__.startswith("3.14.")
    assert list(inspect.signature(TCPConnector._get).parameters) == ["self", "key", "traces"]
    source = inspect.getsource(TCPConnector._get)
    assert "conns.popleft()" in source
    assert "proto.is_connected()" in source
    assert "self._factory" in inspect.getsource(TCPConnector._create_direct_connection)
    for name in ("set_response_params", "data_received", "is_connected", "set_exception", "force_close"):
        assert callable(getattr(ResponseHandler, name))
    assert "self._payload = payload" in inspect.getsource(ResponseHandler.data_received)
    assert issubclass(StrictConnection, ResponseHandler)
