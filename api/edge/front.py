"""The front: it lets connections in, and has each of them until its first request is whole.

Sockets wait here without a transport of the event loop. With one for each, ten thousand connections that send nothing
would be half a million objects for every garbage collection, and each byte that drips would be a turn of the loop.
"""

import asyncio
import errno
import heapq
import math
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from socket import socket
from typing import Any

import structlog
from uvicorn import Config
from uvicorn.server import ServerState

from api.edge.connection_limits import ConnectionLimits
from api.edge.deadline import SharedDeadline
from api.edge.first_request import FirstRequest
from api.edge.http_protocol import HttpProtocol
from api.edge.lingering import LINGER_S
from api.edge.new_connection import NewConnection
from api.edge.readable import open_readable
from api.edge.slow_lane import SlowLane

log = structlog.get_logger(__name__)

READ_BYTES = 256 * 1024
# More than the kernel may have connected, and not so many that others who come could delay the end.
ACCEPTED_AT_END = 4096
# Connections that are let in, and those that are read, before others have their turn in the event loop.
ACCEPTED_PER_TURN, READ_PER_TURN = 8, 8
# Seconds without new connections when this process or the machine has no room for one, and when room was just made.
EXHAUSTED_PAUSE_S, ROOM_PAUSE_S = 0.5, 0.01
# The part of all connections that ends at once when others need room. They have waited at least so many seconds.
ROOM_SHARE, ROOM_WAITED_S = 1 / 16, 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Front:
    """Lets connections in on `listener`, and gives each one to an `HttpProtocol` when its first request is whole."""

    def __init__(
        self,
        listener: socket,
        limits: ConnectionLimits,
        *,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self.prompt, self.slow = open_readable(), SlowLane(self._loop)
        self._make_protocol = partial(HttpProtocol, config, state, app_state, self._loop, limits=limits, slow=self.slow)
        # Connections whose first request has not arrived whole.
        self.new: set[NewConnection] = set()
        self._handing_over: set[asyncio.Task[None]] = set()
        self._is_stopping = self._is_closed = False
        # Each read goes through it.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.state = state
        self.limits = limits
        self.deadline: SharedDeadline[NewConnection] = SharedDeadline(self._loop, limits.request_timeout_s)
        self.lingering: SharedDeadline[NewConnection] = SharedDeadline(self._loop, LINGER_S)

    def open(self) -> None:
        """Begin to let connections in."""
        self._listener.setblocking(False)
        # At the end of the process, uvicorn waits until these are gone.
        self.state.connections.add(self)  # type: ignore[arg-type]  # it calls `shutdown` and nothing else
        self._loop.add_reader(self.prompt, self.prompt.read, READ_PER_TURN)
        self._listen()

    def shutdown(self) -> None:
        """Let no connection in any more, and end those whose request has not arrived whole."""
        if self._is_stopping:
            return
        # Those that the kernel has connected get an answer too, as far as there is room.
        self._accept(ACCEPTED_AT_END)
        self._is_stopping = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in list(self.new):
            connection.shutdown()
        self._close_when_empty()

    def forget(self, connection: NewConnection) -> None:
        """Have the connection no longer: it is closed, or handed over."""
        self.new.discard(connection)
        self._close_when_empty()

    def hand_over(self, connection: socket, first: FirstRequest) -> None:
        """Give a connection to an `HttpProtocol`, which begins with `first`."""
        task = self._loop.create_task(self._hand_over(connection, first))
        self._handing_over.add(task)
        task.add_done_callback(self._handed_over)

    async def _hand_over(self, connection: socket, first: FirstRequest) -> None:
        protocol = self._make_protocol(first=first)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            # The client has gone.
            connection.close()
        else:
            if self._is_stopping:
                protocol.shutdown()

    def _handed_over(self, task: asyncio.Task[None]) -> None:
        self._handing_over.discard(task)
        self._close_when_empty()

    def _listen(self) -> None:
        if not self._is_stopping:
            self._loop.add_reader(self._listener, self._accept, ACCEPTED_PER_TURN)

    @property
    def _count(self) -> int:
        # This front is among the connections of uvicorn, too.
        return len(self.new) + len(self._handing_over) + len(self.state.connections) - 1

    def _accept(self, connections_max: int) -> None:
        for _ in range(connections_max):
            # The one that was let in last is the one too many, and is there to stay.
            if self._count > self.limits.connections_max:
                self._make_room()
                return
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error.strerror)
                    return
                # The client has gone before it was let in.
                continue
            connection.setblocking(False)
            try:
                NewConnection(self, connection).open()
            except OSError as error:
                connection.close()
                self._pause(error.strerror)
                return

    def _make_room(self) -> None:
        """End some of the connections that wait for their client: the longest idle ones, then the oldest new ones."""
        # Those that have their last response are about to go.
        wanted = math.ceil(self.limits.connections_max * ROOM_SHARE) - len(self.lingering)
        before = self._loop.time() - ROOM_WAITED_S
        idle = heapq.nsmallest(wanted, self._idle(before), key=itemgetter(0))
        for _, idle_one in idle:
            idle_one.timeout_keep_alive_handler()
        new = self.deadline.first(wanted - len(idle), before=before)
        for new_one in new:
            new_one.on_crowded()
        ended = len(idle) + len(new)
        self._pause("Too many connections", ROOM_PAUSE_S if ended else EXHAUSTED_PAUSE_S, ended=ended)

    def _idle(self, before: float) -> Iterator[tuple[float, HttpProtocol]]:
        for connection in self.state.connections:
            if isinstance(connection, HttpProtocol):
                since = connection.idle_since
                if since is not None and since < before:
                    yield since, connection

    def _pause(self, error: str | None, pause_s: float = EXHAUSTED_PAUSE_S, **figures: int) -> None:
        log.warning("api.accept_paused", error=error, pause_s=pause_s, **figures)
        self._loop.remove_reader(self._listener)
        self._loop.call_later(pause_s, self._listen)

    def _close_when_empty(self) -> None:
        if self._is_closed or not self._is_stopping or self.new or self._handing_over:
            return
        self._is_closed = True
        self.state.connections.discard(self)
        self._loop.remove_reader(self.prompt)
        self.prompt.close()
        self.slow.close()
