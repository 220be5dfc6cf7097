"""The bytes of a connection that the parser has not got yet, and the head of a request in them (RFC 9112, 2)."""

import re

from api.problems import Code, Problem

# Bytes of the request line and the header lines.
HEAD_BYTES_MAX = 64 * 1024
# Each takes some 150 bytes of memory beside its text.
HEADER_LINES_MAX = 100
NOT_HTTP = "The request is not valid HTTP/1.1."

_HEAD_END = b"\r\n\r\n"
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_METHOD = re.compile(rb"[A-Z-]{1,32}(?: |\Z)")
# Without blanks and a fragment in the target. The parser also takes RTSP and ICE.
_REQUEST_LINE = re.compile(
    rb"[A-Z-]{1,32} (?:/|\*|([a-z]+://[^/?#\s]+)(/?))?[^\x00-\x20\x7f#]* HTTP/1\.[0-9]\r\n", re.IGNORECASE
)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Unread:
    """The bytes that have arrived and are not read yet."""

    __slots__ = ("_request_line", "_scanned", "data", "head_bytes")

    def __init__(self) -> None:
        self.data = bytearray()
        # So many bytes have been searched for the end of the head.
        self._scanned = 0
        # The size of the last head that was taken.
        self.head_bytes = 0
        # The first line of the last head that was taken, until the next one is looked for.
        self._request_line = b""

    @property
    def start(self) -> bytes:
        """What is known of the request that is being read: its first line, or what has arrived of its head."""
        return self._request_line or bytes(self.data)

    def skip_empty_lines(self) -> None:
        """Drop empty lines before the request line: a server should ignore them (RFC 9112, 2.2)."""
        if not self._scanned and self.data.startswith((b"\r", b"\n")):
            del self.data[: len(self.data) - len(self.data.lstrip(b"\r\n"))]

    def find_head(self) -> int | None:
        """Return the size of the head of a request, and leave it here; None if it has not arrived whole.

        Raises Problem: 431 for a head that is too large, 400 for one that is none, as soon as that can be seen.
        """
        self.skip_empty_lines()
        data = self.data
        # The end of the head may arrive in pieces.
        start = max(0, self._scanned - len(_HEAD_END) + 1)
        found = data.find(_HEAD_END, start)
        size = len(data) if found < 0 else found + len(_HEAD_END)
        if size > HEAD_BYTES_MAX:
            raise Problem(Code.HEADERS_TOO_LARGE)
        if found >= 0:
            return size
        if data and (not _METHOD.match(data) or _BARE_LINE_FEED.search(data, start)):
            raise Problem(Code.MALFORMED_REQUEST, NOT_HTTP)
        self._scanned = size
        return None

    def take_head(self) -> bytes | None:
        """Take the head of a request as the parser should see it; None if it has not arrived whole.

        Raises Problem: 431 or 400, as soon as that can be seen.
        """
        self._request_line = b""
        if (size := self.find_head()) is None:
            return None
        self._scanned = 0
        head = bytes(self.data[:size])
        self._request_line = head[: head.index(b"\r\n") + 2]
        del self.data[:size]
        self.head_bytes = size
        return checked_head(head)


def checked_head(head: bytes) -> bytes:
    """Return the whole head of a request as the parser should see it. Raises Problem: 431 or 400."""
    # The request line ends with one, and so does the head.
    if head.count(b"\r\n") > HEADER_LINES_MAX + 2:
        raise Problem(Code.HEADERS_TOO_LARGE)
    request_line = _REQUEST_LINE.match(head)
    if not request_line:
        raise Problem(Code.MALFORMED_REQUEST, NOT_HTTP)
    origin_end = request_line.end(1)
    # An absolute target may leave out the path (RFC 9112, 3.2.2 and RFC 3986, 6.2.3).
    if origin_end > 0 and not request_line[2]:
        head = head[:origin_end] + b"/" + head[origin_end:]
    return _without_upgrade(head)


def _without_upgrade(head: bytes) -> bytes:
    """Return the head without an offer to upgrade: nobody switches protocols here (RFC 9110, 7.8).

    The parser would take what follows such a head for another protocol, and not for the body.
    """
    return _UPGRADE.sub(b"\r\nupgrade-ignored:", head) if b"\r\nupgrade:" in head.lower() else head
