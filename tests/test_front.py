"""The front: how many connections have their turn, and what is left of those that are gone."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from api.edge.expected_body import ExpectedBody
from api.edge.front import ACCEPTED_PER_TURN, READ_PER_TURN
from api.edge.new_connection import NewConnection
from api.edge.readable import EpollReadable, PortableReadable, Readable
from api.problems import Problem
from bench.attack import FLOODS, KINDS
from tests.support.fronted import REQUEST, Fronted
from tests.support.raw_http import ANSWER_S, connected
from tests.support.waiting import eventually


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


# -- the end


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
