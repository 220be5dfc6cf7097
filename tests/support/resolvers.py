"""Name servers of the tests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp.abc import AbstractResolver, ResolveResult


class FixedResolver(AbstractResolver):
    """Leads every name to the same addresses, as the name server of an attacker may do."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = [(address, socket.AF_INET6 if ":" in address else socket.AF_INET) for address in self.addresses]
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": its_family,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address, its_family in found
            if family in {socket.AF_UNSPEC, its_family}
        ]

    async def close(self) -> None:
        """Nothing to close."""


class HangingResolver(FixedResolver):
    """Leads every name to the same addresses, but gives no answer for names below `hanging`."""

    def __init__(self, *addresses: str, hanging: str) -> None:
        super().__init__(*addresses)
        self.hanging = hanging
        # Lookups that hang now, and the most that ever did at once.
        self.pending, self.pending_max = 0, 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host.endswith(self.hanging):
            self.pending += 1
            self.pending_max = max(self.pending, self.pending_max)
            try:
                await asyncio.Event().wait()
            finally:
                self.pending -= 1
        return await super().resolve(host, port, family)


@dataclass(slots=True)
class NameServer(asyncio.DatagramProtocol):
    """A name server on loopback: every name is 127.0.0.1, but for names below `silent` it gives no answer."""

    silent: str
    port: int = 0
    asked: list[str] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query of one question (RFC 1035, 4.1)."""
        labels, end = [], 12
        while length := data[end]:
            labels.append(data[end + 1 : end + 1 + length].decode())
            end += 1 + length
        name = ".".join(labels).lower()
        self.asked.append(name)
        if name.endswith(self.silent):
            return
        is_address = data[end + 1 : end + 3] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if is_address else b""
        counts = b"\0\1" + (b"\0\1" if is_address else b"\0\0") + b"\0\0\0\0"
        assert self.transport is not None
        self.transport.sendto(data[:2] + b"\x81\x80" + counts + data[12 : end + 5] + answer, addr)


@asynccontextmanager
async def name_server(*, silent: str) -> AsyncIterator[NameServer]:
    """A name server until the block ends."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(silent), ("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
