"""The framing of one request: what its head says about its body, and how far the body reaches (RFC 9112, 6)."""

import re

from api.problems import Code, Problem

# Several times the largest body that is valid.
BODY_BYTES_MAX = 64 * 1024
# Bytes that a chunked body may take with its framing: 1 byte in a chunk of its own takes 6.
CHUNKED_BYTES_MAX = 6 * BODY_BYTES_MAX

_READ_HERE = frozenset({b"content-length", b"transfer-encoding", b"host"})
# A name or an IPv4 address, or an address in brackets; perhaps a port (RFC 3986, 3.2.2). A comma would make it a list.
_HOST = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[\w.~!$&'()*+;=:-]+)\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?",
    re.IGNORECASE,
)


def without_blanks(value: bytes) -> bytes:
    """Return the value of a header line without the blanks behind it (RFC 9110, 5.5). The parser drops the others."""
    return value.rstrip(b" \t")


class Framing:
    """Collects the framing of one request. The parser has already refused contradictory lengths."""

    __slots__ = ("_chunked_read", "_codings", "_hosts", "body_left", "is_1_1")

    def __init__(self) -> None:
        # Expect must be ignored in HTTP/1.0 (RFC 9110, 10.1.1).
        self.is_1_1 = False
        self._hosts: list[bytes] = []
        # Bytes of the body that are still to come; None if the body is chunked.
        self.body_left: int | None = 0
        self._chunked_read = 0
        self._codings: list[bytes] = []

    def read_header(self, name: bytes, value: bytes) -> None:
        """Note a header line; its name is in lower case."""
        if name not in _READ_HERE:
            return
        if name == b"content-length":
            self.body_left = int(value)
        elif name == b"transfer-encoding":
            self.body_left = None
            self._codings.append(value.strip().lower())
        else:
            self._hosts.append(value)

    def refusal(self, http_version: str) -> Problem | None:
        """Return why a request with this head is refused, or None."""
        self.is_1_1 = http_version == "1.1"
        if not self.is_1_1 and http_version != "1.0":
            return Problem(Code.MALFORMED_REQUEST, "The service speaks HTTP/1.1 and HTTP/1.0.")
        if len(self._hosts) > 1 or (self.is_1_1 and not self._hosts) or not _HOST.fullmatch(b"".join(self._hosts)):
            return Problem(Code.MALFORMED_REQUEST, "HTTP/1.1 needs one valid Host header (RFC 9112, 3.2).")
        if self._codings not in ([], [b"chunked"]):
            return Problem(Code.MALFORMED_REQUEST, "The only transfer coding of a request is chunked.")
        if self.body_left is not None and self.body_left > BODY_BYTES_MAX:
            return Problem(Code.BODY_TOO_LARGE)
        return None

    def take(self, unread: bytearray) -> bytes:
        """Take the next bytes from `unread` that belong to the body for sure."""
        if self.body_left is not None:
            end = min(self.body_left, len(unread))
            self.body_left -= end
        else:
            # A chunked body ends with a line feed. With one line at a time nothing behind the body is taken.
            end = unread.find(b"\n") + 1 or len(unread)
            self._chunked_read += end
        data = bytes(unread[:end])
        del unread[:end]
        return data

    def is_too_large(self, body_bytes: int) -> bool:
        """Return whether a body of so many bytes, or its framing, is above the limit."""
        return body_bytes > BODY_BYTES_MAX or self._chunked_read > CHUNKED_BYTES_MAX
