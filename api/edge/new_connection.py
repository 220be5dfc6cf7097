"""A connection whose first request has not arrived whole. It is small, as anybody may open thousands of them.

With the objects that a request needs, each garbage collection would look at half a million of them beside ten thousand
connections that send nothing, and payers would wait for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from api.edge.arrival import ArrivalMemory
from api.edge.deadline import SharedDeadline
from api.edge.expected_body import ExpectedBody
from api.edge.http_protocol import CONTINUE, ConnectionLimits, HttpProtocol
from api.edge.lingering import LINGER_S, LingeringTransport
from api.edge.refusals import full, late, response_to_head, response_without_request, stopping
from api.edge.unread import Unread, checked_head
from api.problems import Problem

# Bytes of a request with chunks that wait here. Larger ones are read as they come, and not twice.
CHUNKED_HERE_BYTES_MAX = 8 * 1024


@dataclass(slots=True, kw_only=True)
class _Server:
    """What all connections of a process share."""

    loop: asyncio.AbstractEventLoop
    connections: set[Any]
    memory: ArrivalMemory
    deadline: SharedDeadline
    state: ServerState
    limits: ConnectionLimits
    make_protocol: Callable[[], HttpProtocol]


class Front:
    """Makes the protocol of each connection. Uvicorn calls it like a protocol class."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._server: _Server | None = None

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "NewConnection":
        """Return the protocol of a new connection."""
        if self._server is None:
            loop = _loop or asyncio.get_running_loop()
            self._server = _Server(
                loop=loop,
                connections=server_state.connections,
                memory=self._limits.memory,
                deadline=SharedDeadline(loop, self._limits.request_timeout_s),
                state=server_state,
                limits=self._limits,
                make_protocol=partial(HttpProtocol, config, server_state, app_state, loop, limits=self._limits),
            )
        return NewConnection(self._server)


class NewConnection(asyncio.Protocol):
    """A connection until its first request is whole. Then `HttpProtocol` takes over.

    What has not arrived in time, is too large or breaks a rule is refused here, with as little work as possible: it may
    be thousands of requests.
    """

    __slots__ = ("_body", "_has_continued", "_is_closing", "_server", "_transport", "_unread")

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._unread = Unread()
        # None until the head is whole.
        self._body: ExpectedBody | None = None
        self._has_continued = False
        # It has its last answer. Whatever still arrives is dropped.
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock: a connection on which nothing arrives is closed."""
        # The transport of uvloop is not a subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._server.deadline.start(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the request."""
        self._leave()
        del self._transport

    def data_received(self, data: bytes) -> None:
        """Keep what has arrived while the request is not whole."""
        if self._is_closing:
            return
        self._unread.data += data
        try:
            must_wait = self._must_wait(data)
        except Problem as problem:
            self._refuse(problem)
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            must_wait = False
        if not must_wait:
            self._take_over()
        elif held_bytes := len(self._unread.data):
            self._server.memory.hold(self, held_bytes)

    def on_late(self) -> None:
        """End the connection: its request takes too long."""
        self._end(late)

    def on_full(self) -> None:
        """Refuse the request: its bytes are needed for others."""
        self._end(full)

    def shutdown(self) -> None:
        """Close the connection; uvicorn calls this at the end of the process."""
        transport = self._transport
        if not self._is_closing:
            self._end(stopping)
        # A client that does not read must not delay the end of the process.
        self._server.loop.call_later(2 * LINGER_S, transport.abort)

    def _must_wait(self, data: bytes | bytearray) -> bool:
        """Return whether the request is not whole. Raises Problem or an error of httptools if something is wrong."""
        if self._body is None:
            if (head_bytes := self._unread.find_head()) is None:
                return True
            head = checked_head(bytes(self._unread.data[:head_bytes]))
            self._unread.head_bytes = head_bytes
            self._body = ExpectedBody(head)
            data = self._unread.data[head_bytes:]
            must_wait = not self._body.is_whole_with(data)
            if must_wait and self._body.asks_first and not data:
                self._has_continued = True
                self._transport.write(CONTINUE)
        else:
            must_wait = not self._body.is_whole_with(data)
        return must_wait and not (self._body.is_chunked and len(self._unread.data) > CHUNKED_HERE_BYTES_MAX)

    def _end(self, make_problem: Callable[[], Problem]) -> None:
        if self._unread.data:
            self._refuse(make_problem())
        else:
            # No byte of a request has arrived.
            self._wait_no_longer()
            self._transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem document and close the connection. What still arrives is read and dropped."""
        self._wait_no_longer()
        if (response := self._response(problem)) is not None:
            self._is_closing = True
            self._unread, self._body = Unread(), None
            transport = LingeringTransport(self._transport, self._server.loop)
            transport.write(response)
            transport.close()
        else:
            self._leave()
            self._successor().take_over_refused(self._unread, problem)

    def _response(self, problem: Problem) -> bytes | None:
        """Return the response to what has arrived; None if the application must answer."""
        headers, limits = self._server.state.default_headers, self._server.limits
        head = bytes(self._unread.data[: self._unread.head_bytes])
        if not head:
            return response_without_request(problem, headers, self._unread.start, pages=limits.pages)
        if limits.has_rate_limits:
            return None
        return response_to_head(
            problem,
            head,
            headers,
            root_path=limits.root_path,
            varies_by_origin=limits.varies_by_origin,
            pages=limits.pages,
        )

    def _take_over(self) -> None:
        left_s = self._leave()
        self._successor().take_over(self._unread, left_s=left_s, has_continued=self._has_continued)

    def _successor(self) -> HttpProtocol:
        protocol = self._server.make_protocol()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        return protocol

    def _leave(self) -> float:
        """Wait no longer, and return the seconds that the request has left."""
        self._server.connections.discard(self)
        return self._wait_no_longer()

    def _wait_no_longer(self) -> float:
        self._server.memory.release(self)
        return self._server.deadline.cancel(self)
