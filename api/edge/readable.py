"""Sockets that wait for bytes, many behind one file descriptor of the event loop."""

import select
import selectors
from itertools import islice
from socket import socket
from typing import Protocol


class Reader(Protocol):
    """Reads a socket."""

    @property
    def socket(self) -> socket:
        """The socket, open and not blocking."""

    def on_readable(self) -> None:
        """Read what has arrived, or note that the client has gone. This may be called once more after `remove`."""


class Readable(Protocol):
    """Finds the sockets that have something to read, without an object of the event loop for each of them."""

    def __len__(self) -> int: ...

    def fileno(self) -> int:
        """Return a file descriptor that is readable while one of the sockets is."""

    def add(self, reader: Reader) -> None:
        """Watch the socket of `reader`."""

    def only_end(self, reader: Reader) -> None:
        """Find the socket no longer for what it has to read, but still when its client has gone, if that can be had."""

    def remove(self, reader: Reader) -> None:
        """Watch the socket no longer. It must be open."""

    def read(self, readers_max: int) -> None:
        """Let readers read whose sockets are readable. Those beyond `readers_max` are the first ones next time."""

    def close(self) -> None:
        """Free the file descriptor."""


class EpollReadable:
    """`Readable` on Linux. Finding some costs the same however many are readable."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}

    def __len__(self) -> int:
        return len(self._readers)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, reader: Reader) -> None:
        number = reader.socket.fileno()
        self._epoll.register(number, select.EPOLLIN)
        self._readers[number] = reader

    def only_end(self, reader: Reader) -> None:
        self._epoll.modify(reader.socket.fileno(), select.EPOLLRDHUP)

    def remove(self, reader: Reader) -> None:
        number = reader.socket.fileno()
        self._epoll.unregister(number)
        del self._readers[number]

    def read(self, readers_max: int) -> None:
        found = [self._readers[number] for number, _events in self._epoll.poll(0, readers_max)]
        for reader in found:
            reader.on_readable()

    def close(self) -> None:
        self._epoll.close()


class PortableReadable:
    """`Readable` where the best selector is another one with a file descriptor, as on macOS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # Those that were found and not read yet, in their order.
        self._found: dict[Reader, None] = {}

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def fileno(self) -> int:
        return self._selector.fileno()

    def add(self, reader: Reader) -> None:
        self._selector.register(reader.socket, selectors.EVENT_READ, reader)

    def only_end(self, reader: Reader) -> None:
        self.remove(reader)

    def remove(self, reader: Reader) -> None:
        if reader.socket in self._selector.get_map():
            self._selector.unregister(reader.socket)
        self._found.pop(reader, None)

    def read(self, readers_max: int) -> None:
        for key, _events in self._selector.select(0):
            self._found.setdefault(key.data)
        for reader in list(islice(self._found, readers_max)):
            self._found.pop(reader, None)
            reader.on_readable()

    def close(self) -> None:
        self._selector.close()


def open_readable() -> Readable:
    """Return the best `Readable` of this system."""
    return EpollReadable() if hasattr(select, "epoll") else PortableReadable()
