"""Name servers of the tests."""

import socket

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
