"""The body of a request that is awaited: how much of it is missing."""

import httptools

from api.edge.framing import Framing, without_blanks


class ExpectedBody:
    """Reads the head of a request, and follows its body until it is whole. It keeps neither.

    It decides nothing but how long to wait: `HttpProtocol` reads the same bytes again.
    """

    __slots__ = ("_framing", "_has_head", "_is_whole", "_left", "_parser", "asks_first", "refusal")

    def __init__(self, head: bytes) -> None:
        """Raise an error of httptools if this is not the head of a request."""
        self._has_head = self._is_whole = False
        # The client wants to be asked for the body before it sends any of it (RFC 9110, 10.1.1).
        self.asks_first = False
        # Missing bytes; None if the body is chunked.
        self._left: int | None = None
        self._framing: Framing | None = Framing()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()
            raise
        if not self._has_head:
            self.close()
            raise httptools.HttpParserError
        # Why a request with this head is refused.
        self.refusal = self._framing.refusal(self._parser.get_http_version())
        self.asks_first &= self._framing.is_1_1
        self._left = self._framing.body_left
        if self._left is not None or self.refusal is not None:
            # A request with a length needs no parser, and there may be ten thousand of these.
            self.close()

    def close(self) -> None:
        """Drop the parser, which refers to this object: a garbage collection would have to find the two."""
        self._framing = self._parser = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header line."""
        if self._framing is not None and not self._has_head:
            name, value = name.lower(), without_blanks(value)
            self._framing.read_header(name, value)
            self.asks_first |= name == b"expect" and value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Note that the head is read."""
        self._has_head = True

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._is_whole = True

    def is_whole_with(self, data: bytes | bytearray) -> bool:
        """Return whether the body is whole with these further bytes. Raises an error of httptools if it is none."""
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        unread = bytearray(data)
        while unread and not self._is_whole and self._parser and self._framing:
            self._parser.feed_data(self._framing.take(unread))
        return self._is_whole

    @property
    def is_chunked(self) -> bool:
        """The head does not say how long the body is."""
        return self._left is None
