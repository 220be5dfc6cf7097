"""The front when the process may open no more files: it pauses, and forgets nobody whom the kernel has let in."""

import asyncio
import errno
import gc
import linecache
import os
import resource
from collections.abc import Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from itertools import islice
from socket import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.edge import front
from api.edge.readable import Reader
from api.main import listen
from tests.support.fronted import REQUEST, Fronted
from tests.support.raw_http import ANSWER_S, RawConnection, connected
from tests.support.waiting import eventually

TURNS = 1000


class Listener(socket):
    """A listener on a free port that counts how often it was asked for a connection and had no room for one."""

    refused = 0

    def accept(self) -> tuple[socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            self.refused += error.errno == errno.EMFILE
            raise


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """For the length of the block, this process can have `count` more open files, and not one more."""
    # What nobody holds any more must not be closed meanwhile, and `eventually` quotes from this file.
    gc.collect()
    linecache.getlines(__file__)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in range(soft) if not is_open(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, count, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Waiting:
    """A front that does not listen yet, and clients whose requests wait for it in the kernel."""

    def __init__(self) -> None:
        self.listener = Listener(fileno=listen("127.0.0.1", 0).detach())
        self.fronted = Fronted(request_timeout_s=ANSWER_S, listener=self.listener)
        self.pauses: list[MutableMapping[str, Any]] = []
        self.clients: list[RawConnection] = []

    async def connect(self, count: int, stack: AsyncExitStack) -> None:
        self.pauses = stack.enter_context(capture_logs())
        stack.push_async_callback(self.fronted.end)
        self.clients = [await stack.enter_async_context(connected(self.fronted.url)) for _ in range(count)]
        for client in self.clients:
            await client.send(REQUEST)


async def is_answered(client: RawConnection) -> bool:
    [response] = await client.responses(1)
    return response.status == 200


@pytest.fixture
async def waiting() -> Waiting:
    return Waiting()


async def test_those_who_wait_in_the_kernel_are_served_after_a_pause(waiting: Waiting) -> None:
    async with AsyncExitStack() as stack:
        await waiting.connect(3, stack)
        with descriptors_left(0):
            waiting.fronted.front.open()
            await eventually(lambda: len(waiting.pauses) >= 2)
            assert waiting.fronted.front.new == set()
        for client in waiting.clients:
            assert await is_answered(client)
        paused = {"event": "api.accept_paused", "error": "Too many open files", "pause_s": front.EXHAUSTED_PAUSE_S}
        assert waiting.pauses == [paused | {"log_level": "warning"}] * waiting.listener.refused


async def test_who_waits_is_served_when_another_one_has_gone(waiting: Waiting) -> None:
    async with AsyncExitStack() as stack:
        await waiting.connect(4, stack)
        with descriptors_left(2):
            waiting.fronted.front.open()
            served, left_out = waiting.clients[:2], waiting.clients[2:]
            for client in served:
                assert await is_answered(client)
            await eventually(lambda: waiting.pauses)
            for client, successor in zip(served, left_out, strict=True):
                await client.close()
                assert await is_answered(successor)
        assert len(waiting.pauses) == waiting.listener.refused


async def test_a_pause_is_no_busy_loop_and_the_end_does_not_wait_for_it(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the machine is, the pause outlasts these turns of the event loop."""
    monkeypatch.setattr(front, "EXHAUSTED_PAUSE_S", 3600)
    async with AsyncExitStack() as stack:
        await waiting.connect(2, stack)
        with descriptors_left(0):
            waiting.fronted.front.open()
            await eventually(lambda: waiting.pauses)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert (len(waiting.pauses), waiting.listener.refused) == (1, 1)
        await waiting.fronted.end()
        for client in waiting.clients:
            assert await is_answered(client)


async def test_who_cannot_be_watched_is_closed_and_the_next_one_is_served(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = waiting.fronted.front.prompt.add

    def add_no_more(_reader: Reader) -> None:
        monkeypatch.setattr(waiting.fronted.front.prompt, "add", add)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(waiting.fronted.front.prompt, "add", add_no_more)
    async with AsyncExitStack() as stack:
        await waiting.connect(2, stack)
        waiting.fronted.front.open()
        first, second = waiting.clients
        assert await is_answered(second)
        with pytest.raises(ConnectionResetError):
            await first.until_closed()
        assert [pause["error"] for pause in waiting.pauses] == ["No space left on device"]
