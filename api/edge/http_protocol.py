"""The HTTP/1.1 protocol of the API: uvicorn's, with limits on what a connection may send and how long it may take.

Uvicorn's own protocol gives its parser every byte as it arrives, and starts the application with the head of a request.
This one reads one request at a time and starts the application when the request is whole. It takes a connection over
from `api.edge.front` when the first request is whole, too long to wait there, or to be refused by the application:

- What follows a request is read after its response. An error in it changes nothing for the request before it.
- A body is read to its end and never as a request: nobody switches protocols here, so `Upgrade` is ignored
  (RFC 9110, 7.8).
- A request that never arrives occupies its connection and a share of `memory`, until `request_timeout_s` is over.
"""

import asyncio
from enum import Enum, auto
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.edge.access_log import REFUSED
from api.edge.arrival import Arrival
from api.edge.connection_limits import ConnectionLimits
from api.edge.deadline import Deadline
from api.edge.disconnect import DISCONNECT, Disconnect
from api.edge.first_request import CONTINUE, FirstRequest
from api.edge.framing import Framing, without_blanks
from api.edge.lingering import LINGER_S, LingeringTransport
from api.edge.pace import Pace
from api.edge.refusals import full, late, response_without_request, stopping
from api.edge.slow_lane import SlowLane
from api.edge.unread import NOT_HTTP
from api.problems import Code, Problem

# Bytes of later requests that are read while one request is in progress.
PIPELINED_BYTES_MAX = 64 * 1024


class _Phase(Enum):
    """What the connection is doing."""

    HEAD = auto()
    BODY = auto()
    # The application has the request, and its response is not complete.
    RESPONSE = auto()
    # The connection is being closed: whatever still arrives is dropped.
    CLOSING = auto()


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        slow: SlowLane,
        first: FirstRequest,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._slow = slow
        request_s, memory = limits.request_timeout_s, limits.memory
        self._arrival = Arrival(self.loop, request_s, memory, on_late=self._on_late, on_full=self._on_full)
        self._phase = _Phase.HEAD
        self._first: FirstRequest | None = first
        self._unread = first.unread
        # The client was asked to send the body, before this protocol took over.
        self._has_continued = first.has_continued or first.refused is not None
        self._begin()

    def _begin(self) -> None:
        """Forget the request before this one."""
        self._framing = Framing()
        self._is_whole = False
        self._app: Any = None
        self._disconnect = Disconnect()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows the type
        self._reading = Deadline(self.loop, self._limits.write_timeout_s, self.transport.abort)
        self._pace = Pace(self._slow, self.flow, self.transport)
        first, self._first = cast("FirstRequest", self._first), None
        try:
            self._take_over(first)
        except Exception:
            # The event loop would keep the connection, and never read it.
            self.transport.abort()
            raise

    def _take_over(self, first: FirstRequest) -> None:
        if first.refused is None:
            self._arrival.begin(first.left_s)
            self._read()
            return
        self._parse()
        if self._phase is _Phase.BODY:
            self._refuse(first.refused)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, also after a reset, and tell the request in progress that its client has gone."""
        self._arrival.close()
        self._reading.close()
        self._pace.end()
        self._unset_keepalive_if_required()
        is_waiting, self._phase = self._phase is _Phase.RESPONSE, _Phase.CLOSING
        self._unread.data.clear()
        super().connection_lost(exc)
        if is_waiting:
            self._disconnect.happen()

    def data_received(self, data: bytes) -> None:
        """Read as much of one request as has arrived."""
        if self._phase is _Phase.CLOSING:
            return
        self._unread.data += data
        if self._phase is _Phase.RESPONSE:
            if len(self._unread.data) > PIPELINED_BYTES_MAX:
                self.flow.pause_reading()
            return
        if self._is_idle():
            self._pace.count(len(data))
            return
        self._unset_keepalive_if_required()
        self._read()
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            self._pace.count(len(data))

    def _read(self) -> None:
        self._parse()
        if self._phase is _Phase.HEAD:
            self._arrival.wait(len(self._unread.data))
        elif self._phase is _Phase.BODY:
            self._arrival.wait(self._unread.head_bytes + len(self.cycle.body) + len(self._unread.data))

    def _parse(self) -> None:
        try:
            if self._phase is _Phase.HEAD:
                self._read_head()
            if self._phase is _Phase.BODY:
                self._read_body()
        except Problem as problem:
            self._refuse(problem)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(Problem(Code.MALFORMED_REQUEST, NOT_HTTP))

    def _read_head(self) -> None:
        if (head := self._unread.take_head()) is None:
            return
        self.parser.feed_data(head)
        # The parser takes the preface of HTTP/2 for something that needs no error.
        if self._phase is _Phase.HEAD:
            raise httptools.HttpParserError
        if refusal := self._framing.refusal(self.scope["http_version"]):
            self._refuse(refusal)
        elif self._must_continue and not (self._is_whole or self._unread.data):
            self.transport.write(CONTINUE)

    @property
    def _must_continue(self) -> bool:
        return self._framing.is_1_1 and self.cycle.waiting_for_100_continue and not self._has_continued

    def on_headers_complete(self) -> None:
        """Note that the head is read."""
        super().on_headers_complete()
        self._phase = _Phase.BODY

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header line. Trailers are dropped: they come too late to be checked."""
        if self._phase is not _Phase.BODY:
            value = without_blanks(value)
            super().on_header(name, value)
            self._framing.read_header(self.headers[-1][0], value)

    def _read_body(self) -> None:
        while self._unread.data and not self._is_whole:
            data = self._framing.take(self._unread.data)
            if not data:
                # The parser waits for a body that the head did not announce.
                raise httptools.HttpParserError
            self.parser.feed_data(data)
            if self._framing.is_too_large(len(self.cycle.body)):
                self._refuse(Problem(Code.BODY_TOO_LARGE))
                return
        if self._is_whole:
            self._start()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._is_whole = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ARG002 - uvicorn's signature
        """Keep the application until the request is whole: uvicorn starts it with the head of a request."""
        self._app = app

    def _start(self, refused: Problem | None = None) -> None:
        self._arrival.end()
        self._pace.end()
        self._phase = _Phase.RESPONSE
        self.cycle.waiting_for_100_continue = False
        scope = cast("dict[str, Any]", self.scope)
        scope[DISCONNECT] = self._disconnect
        scope[REFUSED] = refused
        super()._start_asgi_task(self.cycle, self._app)

    def on_response_complete(self) -> None:
        """Read the next request, which may have arrived already."""
        self.server_state.total_requests += 1
        if self._phase is not _Phase.RESPONSE or self.transport.is_closing() or not self.cycle.keep_alive:
            # A transport that closes waits until its client has read everything.
            self._phase = _Phase.CLOSING
            self._reading.start()
            return
        self._phase = _Phase.HEAD
        self._has_continued = False
        self._begin()
        self.flow.resume_reading()
        if not self._is_idle():
            self._read()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem document and close the connection. What still arrives is read and dropped."""
        self._pace.end()
        self.flow.resume_reading()
        transport = LingeringTransport(self.transport, self.loop)
        if self._phase is _Phase.BODY:
            # The application answers, so that the request is logged and counted like every other one.
            self.cycle.transport = transport
            self.cycle.keep_alive = False
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._start(problem)
        else:
            headers, pages = self.server_state.default_headers, self._limits.pages
            transport.write(response_without_request(problem, headers, self._unread.start, pages=pages))
            transport.close()
        self._arrival.end()
        self._reading.start()
        self._phase = _Phase.CLOSING
        self._unread.data.clear()

    def _on_late(self) -> None:
        if self._is_idle():
            self.timeout_keep_alive_handler()
        else:
            self._refuse(late())

    def _on_full(self) -> None:
        self._refuse(full())

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._reading.start()

    def _is_idle(self) -> bool:
        """Return whether nothing of a request has arrived since the last response."""
        if self._phase is not _Phase.HEAD:
            return False
        self._unread.skip_empty_lines()
        return not self._unread.data

    @property
    def idle_since(self) -> float | None:
        """The time of the event loop since which the connection has been idle; None if it is not, or closes."""
        timer = self.timeout_keep_alive_task
        return None if timer is None or self.transport.is_closing() else timer.when() - self.timeout_keep_alive

    def shutdown(self) -> None:
        """Close the connection: at once, or after the response to the request in progress."""
        if self._phase is _Phase.RESPONSE:
            self.cycle.keep_alive = False
            return
        if self._is_idle():
            self.transport.close()
        elif self._phase is not _Phase.CLOSING:
            self._refuse(stopping())
        # A client that does not read must not delay the end of the process.
        self.loop.call_later(2 * LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._reading.start()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._reading.cancel()
