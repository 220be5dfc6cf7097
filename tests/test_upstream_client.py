"""The client of the platform's services, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.errors import UpstreamUnavailable
from shared.upstream.breaker import Breaker
from shared.upstream.client import BODY_BYTES_MAX, WAITING_PER_CONNECTION_MAX, UpstreamClient
from tests.support.order_standins import OrderService
from tests.support.raw_receivers import OK, RawRequest, raw_receiver, saying
from tests.support.receivers import Behaviour, answering, hanging_up, receiver, redirecting, streaming
from tests.support.standins import Standin, running
from tests.support.waiting import eventually

PATIENT_S = 30


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[UpstreamClient]:
    values: dict[str, Any] = {"timeout_s": PATIENT_S, "connections_max": 5, **options}
    async with UpstreamClient("shop", url, **values) as upstream:
        yield upstream


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    async with running(Standin()) as standin:
        yield standin


async def test_what_is_asked_arrives_with_its_token_and_correlation_id_and_the_path_as_it_is(standin: Standin) -> None:
    async with client(standin.url) as upstream:
        reply = await upstream.ask(
            "PUT", "/orders/a%2Fb%3F%C3%BC/status", token="t.t.t", content={"status": "X"}, correlation_id="order-4711"
        )
    assert reply.status == 404
    [received] = standin.requests
    assert (received.method, received.path) == ("PUT", "/orders/a%2Fb%3F%C3%BC/status")
    assert received.body == b'{"status":"X"}'
    assert received.headers["authorization"] == "Bearer t.t.t"
    assert received.headers["x-correlation-id"] == "order-4711"
    assert received.headers["content-type"] == "application/json"


async def test_every_status_is_an_answer_but_those_of_a_proxy_that_reaches_nobody(standin: Standin) -> None:
    async with client(standin.url) as upstream:
        for status in (200, 204, 301, 400, 401, 404, 429, 500, 501, 505):
            standin.failing = status
            assert (await upstream.ask("GET", "/")).status == status
        for status in (502, 503, 504):
            standin.failing = status
            with pytest.raises(UpstreamUnavailable, match=str(status)):
                await upstream.ask("GET", "/")


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones() -> None:
    """A proxy may send one to an idle connection. The next question may be about another user's token."""

    async def twice(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(OK)

    refusal = b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n"
    async with raw_receiver(twice, saying(refusal)) as service, client(f"http://127.0.0.1:{service.port}") as upstream:
        assert (await upstream.ask("GET", "/auth/verify", token="a.b.c")).status == 200
        await asyncio.sleep(0.1)
        assert (await upstream.ask("GET", "/auth/verify", token="d.e.f")).status == 401
        assert [request.connection for request in service.requests] == [0, 1]


async def test_refused_connections_are_unreachable_and_nothing_of_the_token_is_logged(standin: Standin) -> None:
    await standin.down()
    async with client(standin.url) as upstream:
        with capture_logs() as logs, pytest.raises(UpstreamUnavailable):
            await upstream.ask("GET", "/", token="secret.secret.secret")
        assert logs
        assert "secret" not in str(logs)
        await standin.up()
        assert (await upstream.ask("GET", "/health")).status == 200


async def test_an_answer_that_does_not_come_in_time_is_none(standin: Standin) -> None:
    standin.held = asyncio.Event()
    async with client(standin.url, timeout_s=0.1) as upstream:
        with pytest.raises(UpstreamUnavailable, match="Timeout"):
            await upstream.ask("GET", "/")


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (hanging_up(), "Disconnected"),
        (streaming(200, b"x" * 100_000), "ValueError"),
        (streaming(200, b"x", pause_s=0.01), "Timeout"),
    ],
    ids=["hangs up", "endless", "drips"],
)
async def test_answers_that_break_off_or_never_end_are_none(behaviour: Behaviour, why: str) -> None:
    async with receiver(behaviour) as server, client(server.url, timeout_s=1) as upstream:
        with pytest.raises(UpstreamUnavailable, match=why):
            await upstream.ask("GET", "")


async def test_an_answer_may_be_as_long_as_the_cap_and_no_redirect_is_followed() -> None:
    async with receiver(answering(200, b"x" * BODY_BYTES_MAX)) as server, client(server.url) as upstream:
        assert len((await upstream.ask("GET", "")).body) == BODY_BYTES_MAX
    async with receiver() as elsewhere, receiver(redirecting(elsewhere.url)) as server, client(server.url) as upstream:
        assert (await upstream.ask("GET", "")).status == 307
        assert elsewhere.requests == []


async def test_healthy_is_who_says_so_with_200(standin: Standin) -> None:
    async with client(standin.url) as upstream:
        assert await upstream.is_healthy()
        standin.is_sick = True
        assert not await upstream.is_healthy()
        await standin.down()
        assert not await upstream.is_healthy()


@pytest.mark.parametrize("body", [b"", b"OK", b"[]", b"null", b'{"status": "unhealthy"}', b'{"status": ["healthy"]}'])
async def test_a_200_that_does_not_say_healthy_is_not(body: bytes) -> None:
    async with receiver(answering(200, body)) as server, client(server.url.removesuffix("/hook")) as upstream:
        assert not await upstream.is_healthy()


async def test_never_more_requests_at_once_than_connections(standin: Standin) -> None:
    standin.held = asyncio.Event()
    async with client(standin.url, connections_max=3) as upstream:
        asked = [asyncio.create_task(upstream.ask("GET", "/health")) for _ in range(10)]
        await eventually(lambda: len(standin.requests) == 3)
        standin.held.set()
        await asyncio.gather(*asked)
    assert len(standin.requests) == 10


async def test_who_waits_in_vain_for_a_connection_does_not_blame_the_service(standin: Standin) -> None:
    breaker = Breaker("shop", failures_max=1, open_s=1000)
    async with client(standin.url, connections_max=1, timeout_s=0.2, breaker=breaker) as upstream:
        # Another request holds the connection. No real exchange would outlast the wait: both have the same timeout.
        async with upstream._connection():
            with pytest.raises(UpstreamUnavailable, match="in use"):
                await upstream.ask("GET", "/health")
        breaker.check()  # no failure
        assert (await upstream.ask("GET", "/health")).status == 200


async def test_only_so_many_wait_for_a_connection(standin: Standin) -> None:
    standin.held = asyncio.Event()
    async with client(standin.url, connections_max=1) as upstream:
        asked = [asyncio.create_task(upstream.ask("GET", "/health")) for _ in range(1 + WAITING_PER_CONNECTION_MAX + 5)]
        await eventually(lambda: len([each for each in asked if each.done()]) == 5)
        standin.held.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, UpstreamUnavailable)]
    assert len(refused) == 5
    assert "too many" in str(refused[0])


async def test_a_breaker_lets_nobody_queue_behind_a_service_that_is_down() -> None:
    async with running(OrderService()) as service:
        service.failing = 503
        breaker = Breaker("shop", failures_max=3, open_s=1000)
        async with client(service.url, breaker=breaker) as upstream:
            for _ in range(10):
                with pytest.raises(UpstreamUnavailable):
                    await upstream.ask("GET", "/orders/1")
        assert len(service.requests) == 3


async def test_those_who_queued_are_told_as_soon_as_the_breaker_opens(standin: Standin) -> None:
    standin.held = asyncio.Event()
    standin.failing = 503
    breaker = Breaker("shop", failures_max=1, open_s=1000)
    async with client(standin.url, connections_max=1, breaker=breaker) as upstream, asyncio.timeout(PATIENT_S / 2):
        asked = [asyncio.create_task(upstream.ask("GET", "/")) for _ in range(20)]
        await eventually(lambda: standin.requests)
        standin.held.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, UpstreamUnavailable) for answer in answers)
    assert len(standin.requests) == 1


async def test_a_client_that_is_closed_asks_nobody(standin: Standin) -> None:
    async with client(standin.url) as upstream:
        pass
    with pytest.raises(UpstreamUnavailable, match="closed"):
        await upstream.ask("GET", "/health")
    assert standin.requests == []
