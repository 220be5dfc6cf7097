"""A connection whose first request has not arrived whole. It is small, as anybody may open thousands of them."""

from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_WR, socket
from typing import TYPE_CHECKING

import httptools

from api.edge.expected_body import ExpectedBody
from api.edge.first_request import CONTINUE, FirstRequest
from api.edge.refusals import full, late, response_to_head, response_without_request, stopping
from api.edge.slow_lane import READS_MAX, after_read
from api.edge.unread import Unread, checked_head
from api.problems import Problem

if TYPE_CHECKING:
    from api.edge.front import Front

# Bytes of a request with chunks that wait here. Larger ones are read as they come, and not twice.
CHUNKED_HERE_BYTES_MAX = 8 * 1024


class NewConnection:
    """A connection until its first request is whole. Then `HttpProtocol` takes over, as of long requests with chunks.

    What has not arrived in time, is too large or breaks a rule is refused here, with as little work as possible: it may
    be thousands of requests.
    """

    __slots__ = (
        "_body",
        "_front",
        "_has_continued",
        "_is_closing",
        "_is_slow",
        "_is_watched",
        "_reads_left",
        "_unread",
        "socket",
    )

    def __init__(self, front: "Front", connection: socket) -> None:
        self._front = front
        self.socket = connection
        # From its opening until it is closed or handed over.
        self._is_watched = self._is_slow = False
        self._reads_left = float(READS_MAX)
        self._unread = Unread()
        # None until the head is whole.
        self._body: ExpectedBody | None = None
        self._has_continued = False
        # It has its last answer. Whatever still arrives is dropped.
        self._is_closing = False

    def open(self) -> None:
        """Start the clock: a connection on which nothing arrives is closed. Raises OSError if it cannot be watched."""
        self._front.prompt.add(self)
        self._is_watched = True
        self._front.new.add(self)
        self._front.deadline.start(self)
        # Most clients have sent something before they are let in.
        self.on_readable()

    def on_readable(self) -> None:
        """Keep what has arrived while the request is not whole."""
        if not self._is_watched:
            return
        try:
            self._read()
        except Exception:
            # A defect must not be met again and again, with the same bytes.
            self._close()
            raise

    def _read(self) -> None:
        try:
            size = self.socket.recv_into(self._front.buffer)
        except BlockingIOError:
            return
        except OSError:
            # A client that resets the connection has gone, too.
            size = 0
        if not size:
            self._close()
            return
        if not self._is_closing:
            self._receive(bytes(self._front.buffer[:size]))
        if self._is_watched and not self._is_slow:
            self._count_read(size)

    def on_late(self) -> None:
        """End the connection: its request takes too long, or its client has had the time to read the last answer."""
        if self._is_closing:
            self._close()
            return
        self._end(late)

    def on_crowded(self) -> None:
        """End the connection: its place is needed for others."""
        self._end(full)

    def on_full(self) -> None:
        """Refuse the request: its bytes are needed for others."""
        self._refuse(full())

    def shutdown(self) -> None:
        """End the connection, at the end of the process."""
        if not self._is_closing:
            self._end(stopping)

    def _receive(self, data: bytes) -> None:
        self._unread.data += data
        try:
            must_wait = self._must_wait(data)
        except Problem as problem:
            self._refuse(problem)
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            must_wait = False
        if not must_wait:
            self._hand_over(None)
        elif held_bytes := len(self._unread.data):
            self._front.limits.memory.hold(self, held_bytes)

    def _must_wait(self, data: bytes | bytearray) -> bool:
        """Return whether the request is not whole. Raises Problem or an error of httptools if something is wrong."""
        if self._body is None:
            if (head_bytes := self._unread.find_head()) is None:
                return True
            head = checked_head(bytes(self._unread.data[:head_bytes]))
            self._unread.head_bytes = head_bytes
            self._body = ExpectedBody(head)
            if self._body.refusal is not None:
                raise self._body.refusal
            data = self._unread.data[head_bytes:]
            must_wait = not self._body.is_whole_with(data)
            if must_wait and self._body.asks_first and not data:
                self._has_continued = True
                with suppress(OSError):
                    self.socket.send(CONTINUE)
        else:
            must_wait = not self._body.is_whole_with(data)
        return must_wait and not (self._body.is_chunked and len(self._unread.data) > CHUNKED_HERE_BYTES_MAX)

    def _end(self, make_problem: Callable[[], Problem]) -> None:
        # What has arrived counts, also if it was not read.
        self.on_readable()
        if not self._is_watched or self._is_closing:
            return
        if self._unread.data:
            self._refuse(make_problem())
        else:
            self._close()

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem document, and close the connection in two steps: see `LingeringTransport`."""
        response = self._response(problem)
        if response is None:
            self._hand_over(problem)
            return
        self._wait_no_longer()
        self._is_closing = True
        self._unread = Unread()
        try:
            # It fits into the buffer of the socket: nothing but CONTINUE was sent before.
            self.socket.send(response)
            self.socket.shutdown(SHUT_WR)
        except OSError:
            self._close()
        else:
            self._front.lingering.start(self)

    def _response(self, problem: Problem) -> bytes | None:
        """Return the response to what has arrived; None if the application must answer."""
        headers, limits = self._front.state.default_headers, self._front.limits
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

    def _hand_over(self, refused: Problem | None) -> None:
        left_s = self._wait_no_longer()
        self._unwatch()
        first = FirstRequest(self._unread, left_s, self._has_continued, refused)
        self._front.hand_over(self.socket, first)
        self._front.forget(self)

    def _close(self) -> None:
        if not self._is_watched:
            # It is closed already, or handed over.
            return
        self._wait_no_longer()
        self._unwatch()
        self.socket.close()
        self._front.forget(self)

    def _count_read(self, size: int) -> None:
        self._reads_left = after_read(self._reads_left, size)
        if self._reads_left <= 0:
            self._is_slow = True
            self._front.prompt.only_end(self)
            self._front.slow.add(self)

    def _unwatch(self) -> None:
        self._is_watched = False
        self._front.prompt.remove(self)
        if self._is_slow:
            self._front.slow.remove(self)

    def _wait_no_longer(self) -> float:
        """Count and hold no longer, and return the seconds that the request has left."""
        if self._body is not None:
            self._body.close()
            self._body = None
        self._front.limits.memory.release(self)
        self._front.lingering.cancel(self)
        return self._front.deadline.cancel(self)
