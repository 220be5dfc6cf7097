"""The front: how many connections have their turn, what slow ones cost, and what is left of those that are gone."""

import asyncio
import errno
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from time import monotonic

import pytest
import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from api.edge.arrival import ArrivalMemory
from api.edge.expected_body import ExpectedBody
from api.edge.front import ACCEPTED_PER_TURN, EXHAUSTED_PAUSE_S, READ_PER_TURN, SLOW_LOOK_S, SLOW_PER_LOOK, Front
from api.edge.http_protocol import ConnectionLimits
from api.edge.new_connection import READS_MAX, NewConnection
from api.edge.readable import EpollReadable, PortableReadable, Readable
from api.main import listen
from api.problems import Problem
from bench.attack import FLOODS, KINDS
from tests.support.raw_http import ANSWER_S, RawConnection, connected
from tests.support.waiting import eventually

REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(_scope: object, _receive: object, send: Callable[..., object]) -> None:
    """Answer every request with an empty 200."""
    for message in (
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]},
        {"type": "http.response.body", "body": b""},
    ):
        await send(message)  # type: ignore[misc]  # ASGI


class Fronted:
    """A front on a free port, with an application that answers everything."""

    def __init__(self, *, request_timeout_s: float, listener: socket.socket | None = None) -> None:
        config = Config(application, lifespan="off", log_config=None)
        config.load()
        self.state = ServerState()
        listener = listener or listen("127.0.0.1", 0)
        self.address = listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        limits = ConnectionLimits(request_timeout_s=request_timeout_s, write_timeout_s=ANSWER_S, memory=ArrivalMemory())
        self.front = Front(listener, limits, config=config, state=self.state, app_state={})

    async def end(self) -> None:
        """Shut down, and wait until no connection is left."""
        for connection in list(self.state.connections):
            connection.shutdown()
        await eventually(lambda: not self.state.connections)


@pytest.fixture
async def fronted() -> AsyncIterator[Fronted]:
    """A front that waits long for requests."""
    fronted = Fronted(request_timeout_s=ANSWER_S)
    fronted.front.open()
    yield fronted
    await fronted.end()


@contextmanager
def collections_off() -> Iterator[None]:
    """Collect no garbage for the length of the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(*kinds: type) -> int:
    return sum(isinstance(one, kinds) for one in gc.get_objects())


# -- what is left of them


@pytest.mark.parametrize(
    "request_bytes",
    [*(begin + drip for begin, drip in KINDS.values()), *FLOODS.values(), b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"],
)
@pytest.mark.parametrize("are_late", [True, False])
async def test_a_connection_that_is_gone_leaves_nothing_for_the_garbage_collection(
    request_bytes: bytes, are_late: bool
) -> None:
    """In an attack each collection would find thousands of these, and payers would wait for it."""
    fronted = Fronted(request_timeout_s=0.2 if are_late else ANSWER_S)
    fronted.front.open()
    with collections_off():
        async with connected(fronted.url) as connection:
            await connection.send(request_bytes)
            if are_late:
                await connection.until_closed()
            else:
                await asyncio.sleep(0.05)
        await eventually(lambda: alive(NewConnection, ExpectedBody, Problem) == 0)
    await fronted.end()


# -- turns


@pytest.mark.parametrize("make", [EpollReadable, PortableReadable])
def test_those_that_were_left_out_are_the_first_next_time(make: Callable[[], Readable]) -> None:
    class Pair:
        def __init__(self) -> None:
            self.socket, self.other = socket.socketpair()
            self.other.send(b"a")

        def on_readable(self) -> None:
            read.append(self)
            # More has arrived before the next look.
            self.socket.recv(1)
            self.other.send(b"a")

    read: list[Pair] = []
    readable = make()
    pairs = [Pair() for _ in range(5)]
    for pair in pairs:
        readable.add(pair)
    for _ in range(3):
        readable.read(2)
    assert len(read) == 6
    assert set(read) == set(pairs)
    assert len(readable) == len(pairs)
    for pair in pairs:
        readable.remove(pair)
        pair.socket.close()
        pair.other.close()
    assert len(readable) == 0
    readable.close()


@pytest.mark.parametrize("request_bytes", [b"", b"G", REQUEST])
def test_connections_come_in_many_at_a_time_and_others_have_their_turn(request_bytes: bytes) -> None:
    count = 5 * ACCEPTED_PER_TURN
    assert READ_PER_TURN >= ACCEPTED_PER_TURN

    async def turns_until_all_are_in() -> int:
        fronted = Fronted(request_timeout_s=ANSWER_S)
        clients = [socket.create_connection(fronted.address) for _ in range(count)]
        for client in clients:
            client.sendall(request_bytes)
        fronted.front.open()
        turns = 0
        while len(fronted.front.new) + len(fronted.state.connections) - 1 < count:
            await asyncio.sleep(0)
            turns += 1
        for client in clients:
            client.close()
        await fronted.end()
        return turns

    needed = count // ACCEPTED_PER_TURN
    assert needed <= uvloop.run(turns_until_all_are_in()) <= needed + 6


async def _drip(connection: RawConnection, count: int) -> None:
    for _ in range(count):
        await connection.send(b"a")
        await asyncio.sleep(0.01)


async def test_however_fast_clients_drip_they_are_read_as_often_as_we_like(
    fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = NewConnection.on_readable

    def count_and_read(self: NewConnection) -> None:
        nonlocal reads
        reads += 1
        read(self)

    async with AsyncExitStack() as stack:
        drips = [await stack.enter_async_context(connected(fronted.url)) for _ in range(20)]
        for drip in drips:
            await drip.send(b"GET /")
        await asyncio.gather(*(_drip(drip, 2 * READS_MAX) for drip in drips))
        assert len(fronted.front.slow) == len(drips)
        monkeypatch.setattr(NewConnection, "on_readable", count_and_read)
        began = monotonic()
        await asyncio.gather(*(_drip(drip, 50) for drip in drips))
        took_s = monotonic() - began
        assert 0 < reads <= SLOW_PER_LOOK * (took_s / SLOW_LOOK_S + 2)
        monkeypatch.undo()
        # Each of them is answered, and its end is noticed, however slow it was.
        for drip in drips:
            await drip.send(REQUEST.removeprefix(b"GET /"))
            (response,) = await drip.responses(1)
            assert response.status == 200
    await eventually(lambda: not fronted.front.new)
    assert len(fronted.front.slow) == 0


async def test_what_arrived_in_time_is_answered_though_it_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fronted = Fronted(request_timeout_s=2)
    fronted.front.open()
    async with connected(fronted.url) as connection:
        for byte in REQUEST[: 2 * READS_MAX]:
            await connection.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert len(fronted.front.slow) == 1
        # As if thousands of others were before it.
        monkeypatch.setattr(fronted.front.slow, "read", lambda _readers_max: None)
        await connection.send(REQUEST[2 * READS_MAX :])
        (response,) = await connection.responses(1)
    assert response.status == 200
    await fronted.end()


async def test_a_slow_client_that_hangs_up_is_forgotten(fronted: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(fronted.url) as connection:
        await _drip(connection, 2 * READS_MAX)
        assert len(fronted.front.slow) == 1
        # Its end does not wait until it is looked at.
        monkeypatch.setattr(fronted.front.slow, "read", lambda _readers_max: None)
    await eventually(lambda: not fronted.front.new)


async def test_a_request_in_packets_is_not_slow(fronted: Fronted) -> None:
    async with connected(fronted.url) as connection:
        await connection.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n")
        for _ in range(19):
            await connection.send(b"a" * 1500)
            await asyncio.sleep(0.01)
        assert len(fronted.front.slow) == 0
        await connection.send(b"a" * 1500)
        (response,) = await connection.responses(1)
    assert response.status == 200


async def test_who_drips_a_little_more_is_slow_too(fronted: Fronted) -> None:
    async with connected(fronted.url) as connection:
        await connection.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(2 * READS_MAX):
            await connection.send(b"a" * 300)
            await asyncio.sleep(0.01)
        assert len(fronted.front.slow) == 1


# -- the listener


class Exhausted(socket.socket):
    """A listener, to which the machine gives nothing at first."""

    refused = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.refused < 2:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_file_descriptors_it_waits_and_goes_on() -> None:
    listener = Exhausted()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    fronted = Fronted(request_timeout_s=ANSWER_S, listener=listener)
    fronted.front.open()
    began = monotonic()
    async with connected(fronted.url) as connection:
        await connection.send(REQUEST)
        (response,) = await connection.responses(1)
    assert response.status == 200
    assert listener.refused == 2
    assert monotonic() - began > 2 * EXHAUSTED_PAUSE_S - 0.05
    await fronted.end()


async def test_who_is_connected_when_the_end_begins_is_answered() -> None:
    """Connections that the kernel has accepted, and the front has not."""
    fronted = Fronted(request_timeout_s=ANSWER_S)
    fronted.front.open()
    with (
        socket.create_connection(fronted.address) as whole,
        socket.create_connection(fronted.address) as half,
        socket.create_connection(fronted.address) as unread,
    ):
        await eventually(lambda: len(fronted.front.new) == 3)
        # They arrive, and the front is told to end before it looks.
        whole.sendall(REQUEST)
        half.sendall(REQUEST[:-2])
        unread.sendall(REQUEST)
        with socket.create_connection(fronted.address) as last:
            last.sendall(REQUEST)
            fronted.front.shutdown()
            clients = ((whole, b"200"), (half, b"503"), (unread, b"200"), (last, b"200"))
            await _are_answered_and_closed(clients)
    await fronted.end()


async def _are_answered_and_closed(clients: Iterable[tuple[socket.socket, bytes]]) -> None:
    for client, status in clients:
        client.settimeout(ANSWER_S)
        assert (await asyncio.to_thread(client.recv, 1000))[9:12] == status
        # It is closed, and not kept for another request.
        while await asyncio.to_thread(client.recv, 1000):
            pass
