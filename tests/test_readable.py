"""Sockets behind one file descriptor: whom a look finds, and whom it finds only when the client has gone."""

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.edge.readable import EpollReadable, PortableReadable, Readable

KINDS = [EpollReadable, PortableReadable]
# More than any test has.
ALL = 100


class Reader:
    """Reads one end of a connection, and keeps what it has read."""

    def __init__(self, found: list["Reader"]) -> None:
        # Of TCP, as the clients of the front are.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.socket, _ = listener.accept()
        self.socket.setblocking(False)
        self._found = found

    def on_readable(self) -> None:
        self._found.append(self)

    def close(self) -> None:
        self.socket.close()
        self.client.close()


@pytest.fixture
def found() -> list[Reader]:
    """The readers that were found, one after the other."""
    return []


@pytest.fixture
def make_reader(found: list[Reader]) -> Iterator[Callable[[], Reader]]:
    readers: list[Reader] = []

    def make() -> Reader:
        readers.append(Reader(found))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


@pytest.fixture(params=KINDS)
def readable(request: pytest.FixtureRequest) -> Iterator[Readable]:
    made: Readable = request.param()
    yield made
    made.close()


def is_waking(readable: Readable, timeout_s: float = 0) -> bool:
    """Whether the event loop would look."""
    return bool(select.select([readable.fileno()], [], [], timeout_s)[0])


def hang_up(client: socket.socket) -> None:
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def test_those_with_something_to_read_are_found_until_they_have_read_it(
    readable: Readable, make_reader: Callable[[], Reader], found: list[Reader]
) -> None:
    silent, talking = make_reader(), make_reader()
    readable.add(silent)
    readable.add(talking)
    assert not is_waking(readable)
    talking.client.send(b"a")
    assert is_waking(readable, 10)
    readable.read(ALL)
    readable.read(ALL)
    assert found == [talking, talking]
    talking.socket.recv(1)
    assert not is_waking(readable)
    assert len(readable) == 2


@pytest.mark.parametrize("go", [hang_up, half_close, reset])
def test_of_those_whose_end_is_awaited_only_the_end_is_found(
    make_reader: Callable[[], Reader], found: list[Reader], go: Callable[[socket.socket], Any]
) -> None:
    readable = EpollReadable()
    slow, prompt = make_reader(), make_reader()
    readable.add(slow)
    readable.add(prompt)
    slow.client.send(b"a")
    assert is_waking(readable, 10)
    readable.only_end(slow)
    # However much it sends, nobody is woken.
    slow.client.send(b"a" * 1000)
    assert not is_waking(readable)
    readable.read(ALL)
    assert found == []
    prompt.client.send(b"a")
    assert is_waking(readable, 10)
    readable.read(ALL)
    assert found == [prompt]
    prompt.socket.recv(1)
    go(slow.client)
    assert is_waking(readable, 10)
    readable.read(ALL)
    assert found == [prompt, slow]
    readable.remove(slow)
    assert len(readable) == 1
    readable.close()


def test_where_the_end_alone_cannot_be_had_nothing_is_found_any_more(
    make_reader: Callable[[], Reader], found: list[Reader]
) -> None:
    readable = PortableReadable()
    reader = make_reader()
    readable.add(reader)
    reader.client.send(b"a")
    readable.only_end(reader)
    reader.client.close()
    readable.read(ALL)
    assert (found, len(readable), is_waking(readable)) == ([], 0, False)
    # As the front does it with every connection that it closes.
    readable.remove(reader)
    readable.close()


def test_one_that_was_removed_is_not_found(
    readable: Readable, make_reader: Callable[[], Reader], found: list[Reader]
) -> None:
    removed, stays = make_reader(), make_reader()
    for reader in (removed, stays):
        readable.add(reader)
        reader.client.send(b"a")
    readable.remove(removed)
    assert is_waking(readable, 10)
    readable.read(ALL)
    assert found == [stays]
    assert len(readable) == 1
