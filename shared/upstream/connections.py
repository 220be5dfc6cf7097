"""HTTP connections that are kept between requests, and used again only while nothing has come over them unasked.

aiohttp keeps connections too, but it believes whatever has arrived on one to be the next answer, and it forgets an
answer if what follows the header in the same packet is wrong. It has no setting for either, so this module uses parts
of it that are not public: aiohttp is pinned below the next minor version, and `tests/test_connections.py` fails if
one of them changes.
"""

import asyncio
import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from aiohttp import ClientError, ClientPayloadError, TCPConnector
from aiohttp.client_proto import ResponseHandler

# Bytes of the header of an answer, its status line and interim answers (1xx) included. aiohttp's own limits are 8,190
# bytes a line and 128 lines, which answers with long cookies or many headers exceed.
HEAD_BYTES_MAX = 64 * 1024
# Header lines of an answer.
HEAD_LINES_MAX = 1_000
# The end of a header. The parser takes a bare LF for the end of a line, too.
_HEAD_END = re.compile(rb"\n\r?\n")
# The bytes before the end of a packet in which the end of a header may begin.
_HEAD_END_BYTES = 3
_STATUS_LINE = re.compile(rb"\s*HTTP/\d\.\d +(\d{3})(?!\d)")
_HTTP = b"HTTP/"
# Blank lines before an answer are rare and few.
_SEARCHED_FOR_HTTP_BYTES = 64
# After these a body is announced sometimes and never expected.
_WITHOUT_BODY = frozenset({204, 304})
_ANNOUNCED_BODY = re.compile(rb"\n(content-length:[ \t]*0*[1-9]|transfer-encoding:)", re.IGNORECASE)
_INTERIM = range(100, 200)
_SWITCHING_PROTOCOLS = 101


class HeaderTooLong(ClientError):
    """The header of an answer has more than HEAD_BYTES_MAX bytes or HEAD_LINES_MAX lines."""


class NotHttp(ClientError):
    """What was received does not begin as an HTTP answer does."""


class Exchange:
    """What one request needs, and what is known about it when it has failed.

    `is_new` demands a connection that has carried no request before. `is_reused` says that the connection had carried
    one. `status` is the status in the status line of the answer, also if the header was not whole or not valid; None
    if there was none. `has_answer` says that any byte of an answer has arrived.
    """

    def __init__(self, *, is_new: bool = False) -> None:
        self.is_new = is_new
        self.is_reused = False
        self.status: int | None = None
        self.has_answer = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the connector and the connection that the block uses know this exchange."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)


# aiohttp passes nothing of a request on to the choice of a connection.
_running: ContextVar[Exchange | None] = ContextVar("running_exchange", default=None)


class StrictConnection(ResponseHandler):
    """One connection to a server.

    The header of an answer is given to the parser by itself, so that the status counts whatever follows. What arrives
    while no answer is expected closes the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._exchange = Exchange()
        self._was_used = False
        self._awaits_head = False
        self._head = bytearray()
        # Of earlier, interim answers to the same request.
        self._earlier_bytes = self._earlier_lines = 0
        # Line ends in the part of `_head` that has no end of a header.
        self._lines = 0
        self._poller: select.poll | None = None

    def is_connected(self) -> bool:
        """Return whether the connection can be used, again or at all: it is open, and nothing waits to be read."""
        return super().is_connected() and not self.should_close and not (self._was_used and self._has_unread())

    def set_response_params(self, **options: Any) -> None:
        """Begin to expect the answer of a request, which is about to be written."""
        self._exchange = _running.get() or Exchange()
        self._exchange.is_reused, self._was_used = self._was_used, True
        self._awaits_head = True
        self._head.clear()
        self._earlier_bytes = self._earlier_lines = self._lines = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of an answer. aiohttp passes no bytes to go on after a pause."""
        if self._awaits_head:
            if data:
                self._read_head(data)
        elif data and (self._payload is None or self._payload.is_eof()):
            # Nobody has asked for this: it must not become the answer of the next request.
            self.force_close()
            self.close()
        else:
            super().data_received(data)
            if self.exception() is not None and self._payload is not None and not self._payload.is_eof():
                # aiohttp lets the reader of a body wait that cannot be read any further.
                self._payload.set_exception(ClientPayloadError("The body is not valid."))

    def _read_head(self, data: bytes) -> None:
        self._exchange.has_answer = True
        searched = max(0, len(self._head) - _HEAD_END_BYTES)
        self._head += data
        # Nearly always the whole header is in one packet, which needs no copy then.
        received = data if len(data) == len(self._head) else bytes(self._head)
        while self._awaits_head:
            end = _HEAD_END.search(received, searched)
            if end is None:
                self._lines += data.count(b"\n")
                self._exchange.status = _status_of(received)
                self._check(received, self._lines)
                return
            head, data = received[: end.end()], received[end.end() :]
            self._exchange.status = _status_of(head)
            lines = head.count(b"\n")
            if not self._check(head, lines):
                return
            answers = len(self)
            super().data_received(head)
            # Blank lines may stand before a header, and interim answers before the one that counts.
            has_final = len(self) > answers and not _is_interim(self._exchange.status)
            self._awaits_head = self.exception() is None and not has_final
            if self._exchange.status in _WITHOUT_BODY and _ANNOUNCED_BODY.search(head):
                self.force_close()
            self._earlier_bytes += len(head)
            self._earlier_lines += lines
            self._head[:] = received = data if self._awaits_head else b""
            self._lines = searched = 0
        if data and self.exception() is None:
            self.data_received(data)

    def _check(self, head: bytes, lines: int) -> bool:
        """Return whether the header may go on so; if not, the answer fails and the connection is closed."""
        # The status line and the empty line at the end are no header lines.
        if self._earlier_bytes + len(head) > HEAD_BYTES_MAX or self._earlier_lines + lines > HEAD_LINES_MAX + 2:
            self._fail(HeaderTooLong())
        elif self._exchange.status is None and not _may_be_http(head):
            # The parser takes other protocols too, and it would wait for a whole line.
            self._fail(NotHttp())
        return self._awaits_head

    def _fail(self, error: ClientError) -> None:
        self._awaits_head = False
        self.set_exception(error)
        if self.transport is not None:
            self.transport.close()

    def _has_unread(self) -> bool:
        """Return whether the kernel has something that the event loop has not read yet: bytes, or the end."""
        if self.transport is None:
            return True
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poller.poll(0))


class StrictConnector(TCPConnector):
    """A pool of such connections, from which the one that was used last is taken first."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        make_connection: Callable[..., ResponseHandler] = StrictConnection
        self._factory = partial(make_connection, self._loop)

    async def _get(self, key: Any, traces: Any) -> Any:
        exchange = _running.get()
        if exchange is not None and exchange.is_new:
            return None
        if idle := self._conns.get(key):
            # aiohttp takes the leftmost, which has been idle for longest.
            idle.rotate(1)
        return await super()._get(key, traces)


def _may_be_http(head: bytes) -> bool:
    """Return whether the bytes are, or may become, the beginning of an HTTP answer. Blank lines may stand before it."""
    start = head[:_SEARCHED_FOR_HTTP_BYTES].lstrip(b"\r\n")
    return start.startswith(_HTTP) or _HTTP.startswith(start)


def _status_of(head: bytes) -> int | None:
    found = _STATUS_LINE.match(head)
    return int(found[1]) if found else None


def _is_interim(status: int | None) -> bool:
    return status in _INTERIM and status != _SWITCHING_PROTOCOLS
