"""A name server on loopback that gives no answer for some names."""

import asyncio
from dataclasses import dataclass, field

HEADER_BYTES = 12
# The flags of an answer without an error; one question; the pointer to its name; an A record of 127.0.0.1.
FLAGS, ONE, NONE = b"\x81\x80", b"\0\1", b"\0\0"
ADDRESS_TYPE = b"\0\1"
LOOPBACK = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"


@dataclass(slots=True)
class NameServer(asyncio.DatagramProtocol):
    """Answers 127.0.0.1 for every name, and nothing at all for names that end in `silent`."""

    silent: str
    port: int = 0
    # The names of all questions so far.
    asked: list[str] = field(default_factory=list)
    _transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Remember where answers are sent from."""
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query of one question (RFC 1035, 4.1)."""
        labels, end = [], HEADER_BYTES
        while length := data[end]:
            labels.append(data[end + 1 : end + 1 + length].decode())
            end += 1 + length
        name = ".".join(labels).lower()
        self.asked.append(name)
        if name.endswith(self.silent) or self._transport is None:
            return
        is_address = data[end + 1 : end + 3] == ADDRESS_TYPE
        counts = ONE + (ONE if is_address else NONE) + NONE + NONE
        question = data[HEADER_BYTES : end + 5]
        self._transport.sendto(data[:2] + FLAGS + counts + question + (LOOPBACK if is_address else b""), addr)


async def open_name_server(silent: str, port: int = 0) -> tuple[asyncio.DatagramTransport, NameServer]:
    """Open a name server on loopback; port 0 = any. The caller closes the transport."""
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: NameServer(silent), ("127.0.0.1", port))
