"""Name servers of the tests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp.abc import AbstractResolver, ResolveResult

from bench.name_server import NameServer, open_name_server


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


@asynccontextmanager
async def name_server(*, silent: str) -> AsyncIterator[NameServer]:
    """A name server until the block ends."""
    transport, server = await open_name_server(silent)
    try:
        yield server
    finally:
        transport.close()
