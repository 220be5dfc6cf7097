"""Slow clients: what their drips cost, and that each of them is answered, on its first request and on later ones."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import pytest
import uvloop

from api.edge.http_protocol import HttpProtocol
from api.edge.new_connection import CHUNKED_HERE_BYTES_MAX, NewConnection
from api.edge.slow_lane import READS_MAX, SLOW_LOOK_S, SLOW_PER_LOOK
from tests.support.fronted import REQUEST, Fronted
from tests.support.raw_http import ANSWER_S, RawConnection, connected
from tests.support.waiting import eventually

POST = b"POST /x HTTP/1.1\r\nHost: x\r\n"
CHUNK = b"%x\r\n%s\r\n" % (2 * CHUNKED_HERE_BYTES_MAX, b" " * 2 * CHUNKED_HERE_BYTES_MAX)


@dataclass(frozen=True)
class Pieces:
    """A request in pieces: what is sent at once, what is dripped, and the end, after so many drips."""

    begin: bytes
    drip: bytes
    end: Callable[[int], bytes]

    @property
    def answers(self) -> int:
        """How many requests there are, when it is whole."""
        return 1 + self.begin.startswith(REQUEST)


FIRST_HEAD = Pieces(b"GET /", b"a", lambda _drips: REQUEST.removeprefix(b"GET /"))
LATER_HEAD = Pieces(REQUEST + FIRST_HEAD.begin, FIRST_HEAD.drip, FIRST_HEAD.end)
LATER_BODY = Pieces(REQUEST + POST + b"Content-Length: 1000\r\n\r\n", b"a", lambda drips: b"a" * (1000 - drips))
CHUNKS = Pieces(POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK, b"1\r\n \r\n", lambda _drips: b"0\r\n\r\n")
# Those that have a transport.
LATER, LATER_NAMES = [LATER_HEAD, LATER_BODY, CHUNKS], ["later head", "later body", "chunks"]


@pytest.fixture(
    params=[
        pytest.param(uvloop.new_event_loop, id="uvloop"),
        pytest.param(asyncio.new_event_loop, id="asyncio", marks=pytest.mark.slow),
    ]
)
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a coroutine in an event loop of each kind that a service may have."""
    return lambda main: asyncio.run(main, loop_factory=request.param)


@asynccontextmanager
async def opened(*, request_timeout_s: float = ANSWER_S) -> AsyncIterator[Fronted]:
    fronted = Fronted(request_timeout_s=request_timeout_s)
    fronted.front.open()
    yield fronted
    await fronted.end()


async def drip(connection: RawConnection, piece: bytes, count: int) -> None:
    for _ in range(count):
        await connection.send(piece)
        await asyncio.sleep(0.01)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads of connections that are accepted from now on."""
    sizes: list[int] = []
    read, receive = NewConnection.on_readable, HttpProtocol.data_received

    def count_and_read(self: NewConnection) -> None:
        sizes.append(0)
        read(self)

    def count_and_receive(self: HttpProtocol, data: bytes) -> None:
        sizes.append(len(data))
        receive(self, data)

    monkeypatch.setattr(NewConnection, "on_readable", count_and_read)
    monkeypatch.setattr(HttpProtocol, "data_received", count_and_receive)
    return sizes


@pytest.mark.parametrize(
    "pieces", [FIRST_HEAD, LATER_HEAD, LATER_BODY, CHUNKS], ids=["first head", "later head", "later body", "chunks"]
)
def test_however_fast_clients_drip_they_are_read_as_often_as_we_like(
    pieces: Pieces, run: Callable[..., None], reads: list[int]
) -> None:
    answers, drips = pieces.answers, 50

    async def attack() -> None:
        async with opened() as fronted, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(fronted.url)) for _ in range(20)]
            for client in clients:
                await client.send(pieces.begin)
            await asyncio.gather(*(drip(client, pieces.drip, 2 * READS_MAX) for client in clients))
            await eventually(lambda: len(fronted.front.slow) == len(clients))
            reads.clear()
            began = monotonic()
            await asyncio.gather(*(drip(client, pieces.drip, drips) for client in clients))
            took_s = monotonic() - began
            assert 0 < len(reads) <= SLOW_PER_LOOK * (took_s / SLOW_LOOK_S + 2)
            # Each of them is answered, however slow it was, and is slow no longer.
            for client in clients:
                await client.send(pieces.end(2 * READS_MAX + drips))
                assert [response.status for response in await client.responses(answers)] == [200] * answers
            assert len(fronted.front.slow) == 0
            await clients[0].send(REQUEST)
            assert len(await clients[0].responses(answers + 1)) == answers + 1

    run(attack())


@pytest.mark.parametrize("pieces", LATER, ids=LATER_NAMES)
def test_a_slow_client_gets_all_that_others_get(pieces: Pieces, run: Callable[..., None]) -> None:
    async def talk() -> None:
        # It hangs up.
        async with opened() as fronted:
            async with connected(fronted.url) as client:
                await client.send(pieces.begin)
                await drip(client, pieces.drip, 2 * READS_MAX)
                assert len(fronted.front.slow) == 1
            await eventually(lambda: len(fronted.front.slow) == 0 and len(fronted.state.connections) == 1)
        # It is too slow.
        async with opened(request_timeout_s=1) as fronted, connected(fronted.url) as client:
            await client.send(pieces.begin)
            await drip(client, pieces.drip, 2 * READS_MAX)
            assert [response.status for response in await client.until_closed()][-1] == 408
            await eventually(lambda: len(fronted.front.slow) == 0)
        # What follows its request is a request.
        async with opened() as fronted, connected(fronted.url) as client:
            await client.send(pieces.begin)
            await drip(client, pieces.drip, 2 * READS_MAX)
            await client.send(pieces.end(2 * READS_MAX) + REQUEST + REQUEST)
            count = pieces.answers + 2
            assert [response.status for response in await client.responses(count)] == [200] * count
        # The process ends.
        async with opened() as fronted, connected(fronted.url) as client:
            await client.send(pieces.begin)
            await drip(client, pieces.drip, 2 * READS_MAX)
            assert len(fronted.front.slow) == 1
            ended = asyncio.create_task(fronted.end())
            assert [response.status for response in await client.until_closed()][-1] == 503
            await ended

    run(talk())


async def test_what_arrived_in_time_is_answered_though_it_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(request_timeout_s=2) as fronted, connected(fronted.url) as connection:
        for byte in REQUEST[: 2 * READS_MAX]:
            await connection.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert len(fronted.front.slow) == 1
        # As if thousands of others were before it.
        monkeypatch.setattr(fronted.front.slow, "read", lambda: None)
        await connection.send(REQUEST[2 * READS_MAX :])
        (response,) = await connection.responses(1)
        assert response.status == 200


@pytest.mark.parametrize("before", [b"", REQUEST])
@pytest.mark.parametrize(("size", "slow"), [(1500, 0), (300, 1)])
async def test_a_request_in_packets_is_not_slow_and_one_in_smaller_pieces_is(
    before: bytes, size: int, slow: int
) -> None:
    count = 20
    async with opened() as fronted, connected(fronted.url) as connection:
        await connection.send(before + POST + b"Content-Length: %d\r\n\r\n" % (count * size))
        await drip(connection, b"a" * size, count - 1)
        assert len(fronted.front.slow) == slow
        await connection.send(b"a" * size)
        answers = 1 + bool(before)
        assert [response.status for response in await connection.responses(answers)] == [200] * answers
