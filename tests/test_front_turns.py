"""The front lets in and reads some connections at a time: between two batches whatever else is due has its turn."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from api.edge.front import ACCEPTED_PER_TURN, READ_PER_TURN
from api.edge.new_connection import NewConnection
from tests.support.fronted import REQUEST, Fronted
from tests.support.raw_http import ANSWER_S, connected
from tests.support.waiting import eventually

type Run = Callable[[Coroutine[Any, Any, None]], None]

ON_EVERY_LOOP = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
# Many batches, and one that is not full.
COUNT = 5 * max(ACCEPTED_PER_TURN, READ_PER_TURN) + 1


class Turns:
    """Counts how often a method of connections was called in each turn of the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.calls = [0]
        call = getattr(NewConnection, method)

        def count(connection: NewConnection) -> None:
            self.calls[-1] += 1
            call(connection)

        monkeypatch.setattr(NewConnection, method, count)

    async def until(self, total: int) -> None:
        """Return when there were so many calls."""
        async with asyncio.timeout(ANSWER_S):
            while sum(self.calls) < total:
                # This is what has its turn: it was due before the next batch began.
                await asyncio.sleep(0)
                self.calls.append(0)


async def with_clients(fronted: Fronted, use: Callable[[list[socket.socket]], Awaitable[None]]) -> None:
    clients = [socket.create_connection(fronted.address) for _ in range(COUNT)]
    await use(clients)
    for client in clients:
        client.close()
    await fronted.end()


@ON_EVERY_LOOP
def test_others_have_their_turn_between_connections_that_are_let_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def let_in() -> None:
        fronted = Fronted(request_timeout_s=ANSWER_S)

        async def use(_clients: list[socket.socket]) -> None:
            turns = Turns(monkeypatch, "open")
            fronted.front.open()
            await turns.until(COUNT)
            assert len(fronted.front.new) == COUNT
            assert max(turns.calls) <= ACCEPTED_PER_TURN

        await with_clients(fronted, use)

    run(let_in())


@ON_EVERY_LOOP
def test_others_have_their_turn_between_connections_that_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        fronted = Fronted(request_timeout_s=ANSWER_S)

        async def use(clients: list[socket.socket]) -> None:
            fronted.front.open()
            await eventually(lambda: len(fronted.front.new) == COUNT)
            turns = Turns(monkeypatch, "on_readable")
            for client in clients:
                client.sendall(b"G")
            await turns.until(COUNT)
            assert max(turns.calls) <= READ_PER_TURN

        await with_clients(fronted, use)

    run(read())


async def test_a_slow_client_that_hangs_up_is_let_go_long_before_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronted = Fronted(request_timeout_s=3600)
    # As if thousands of others were looked at before it.
    monkeypatch.setattr(fronted.front.slow, "read", lambda _readers_max: None)
    fronted.front.open()
    async with connected(fronted.url) as connection:
        turns = Turns(monkeypatch, "on_readable")
        # The beginning of a request, as anything else would be refused and its connection closed anyway.
        for byte in REQUEST[:-1]:
            before = sum(turns.calls)
            await connection.send(bytes([byte]))
            await turns.until(before + 1)
            if len(fronted.front.slow):
                break
        assert len(fronted.front.slow) == 1
        assert len(fronted.front.new) == 1
    await eventually(lambda: not fronted.front.new)
    assert len(fronted.front.slow) == len(fronted.front.prompt) == 0
    await fronted.end()
