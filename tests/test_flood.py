"""In a flood the event loop's rounds stay short: intents begin a few at a time, connections come in many at a time."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from starlette.types import Message, Receive, Scope, Send

from api.admission import BEGIN_AT_ONCE, CALM, Admission
from api.main import DOORS, doors, listen
from api.middleware import Envelope
from tests.waiting import eventually

PATH = "/api/v1/payments"
BEYOND = 5 * BEGIN_AT_ONCE + 3


def a_scope(method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": PATH, "headers": []}


async def silent() -> Message:
    return {"type": "http.disconnect"}


async def unheard(_message: Message) -> None:
    return


class Crowd:
    """Intents that come all at once through the envelope, and stay inside until `opened` is set."""

    def __init__(self) -> None:
        self.admission = Admission(CALM + BEYOND, frozenset({PATH}))
        self.envelope = Envelope(self._app, self.admission)
        self.begun: list[int] = []
        self.opened = asyncio.Event()
        self.scopes = [a_scope() for _ in range(CALM + BEYOND)]
        self.tasks = [asyncio.create_task(self.envelope(scope, silent, unheard)) for scope in self.scopes]

    async def _app(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.begun.append(next(number for number, one in enumerate(self.scopes) if one is scope))
        await self.opened.wait()

    async def all_begun(self, count: int) -> None:
        await eventually(lambda: len(self.begun) == count)
        self.opened.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert self.admission.inside == 0
        assert self.admission._rounds is None, "the event loop goes round for nobody"


async def test_few_begin_together_when_there_are_many_and_all_in_the_order_they_came() -> None:
    crowd = Crowd()
    await asyncio.sleep(0)
    assert len(crowd.begun) == CALM
    rounds = []
    while len(crowd.begun) < CALM + BEYOND:
        before = len(crowd.begun)
        await asyncio.sleep(0)
        rounds.append(len(crowd.begun) - before)
    assert max(rounds) <= BEGIN_AT_ONCE
    await crowd.all_begun(CALM + BEYOND)
    assert crowd.begun == list(range(CALM + BEYOND))


async def test_one_that_comes_when_the_flood_is_over_overtakes_nobody() -> None:
    crowd = Crowd()
    await asyncio.sleep(0)
    crowd.opened.set()
    await asyncio.gather(*crowd.tasks[:CALM])  # there is room now, and still a line
    late = len(crowd.scopes)
    crowd.scopes.append(a_scope())
    crowd.tasks.append(asyncio.create_task(crowd.envelope(crowd.scopes[late], silent, unheard)))
    await crowd.all_begun(CALM + BEYOND + 1)
    assert crowd.begun[-1] == late


async def test_whoever_sends_no_intent_waits_for_no_line() -> None:
    crowd = Crowd()
    await asyncio.sleep(0)
    look = a_scope("GET")
    crowd.scopes.append(look)
    asking = asyncio.create_task(crowd.envelope(look, silent, unheard))
    crowd.tasks.append(asking)
    await asyncio.sleep(0)
    assert crowd.scopes.index(look) in crowd.begun
    assert len(crowd.begun) < CALM + BEYOND
    await crowd.all_begun(CALM + BEYOND + 1)


async def test_one_that_is_cut_off_in_the_line_gives_its_place_back_and_takes_no_turn() -> None:
    crowd = Crowd()
    await asyncio.sleep(0)
    for gone in range(CALM, CALM + BEGIN_AT_ONCE):
        crowd.tasks[gone].cancel()
    await asyncio.sleep(0)  # the round's first are told
    await asyncio.sleep(0)  # they begin
    assert len(crowd.begun) == CALM + BEGIN_AT_ONCE
    assert crowd.admission.inside == CALM + BEYOND - BEGIN_AT_ONCE
    await crowd.all_begun(CALM + BEYOND - BEGIN_AT_ONCE)


@pytest.mark.parametrize(("opened", "rounds"), [(doors, 3), (lambda listener: [listener], 2 * DOORS)])
def test_connections_come_in_through_every_door_in_each_round(
    opened: Callable[[socket.socket], list[socket.socket]], rounds: int
) -> None:
    """With one door it takes as many rounds as there are connections: if it no longer does, one is enough."""

    class Guest(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            guests.append(transport)

    guests: list[asyncio.Transport] = []

    async def rounds_until_all_are_in() -> int:
        loop = asyncio.get_running_loop()
        listener = listen("127.0.0.1", 0)
        address = listener.getsockname()
        servers = [await loop.create_server(Guest, sock=door) for door in opened(listener)]
        clients = [socket.create_connection(address) for _ in range(2 * DOORS)]
        count = 0
        while len(guests) < len(clients):
            await asyncio.sleep(0)
            count += 1
        for client in clients:
            client.close()
        for server in servers:
            server.close()
        return count

    found = uvloop.run(rounds_until_all_are_in())
    assert rounds <= found <= rounds + 3
