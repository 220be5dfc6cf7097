"""The resolver of deliveries: it asks name servers itself, apart from every other part of the process.

Names that hang hold no thread, and those of one registered domain hold few of the lookups.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import AsyncResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from shared.webhooks.flows import registered_domain

# Lookups at once for names of one registered domain.
PER_DOMAIN_MAX = 10
# Seconds that a name server has for one answer, and how often it is asked.
QUERY_TIMEOUT_S, QUERY_TRIES = 2.0, 2
# Seconds that one lookup may take, with all name servers and search domains.
LOOKUP_MAX_S = 5.0


def open_resolver(name_servers: Sequence[str]) -> AsyncResolver:
    """Return a resolver that asks these name servers, or those of the system if there are none.

    It has its own sockets. It needs the running event loop.
    """
    servers = list(name_servers) or None
    return AsyncResolver(nameservers=servers, timeout=QUERY_TIMEOUT_S, tries=QUERY_TRIES)


class BoundedResolver(AbstractResolver):
    """Makes at most `lookups_max` lookups at once through `resolver`, and PER_DOMAIN_MAX for one registered domain.

    A lookup beyond that waits.
    """

    def __init__(self, resolver: AbstractResolver, *, lookups_max: int) -> None:
        self._resolver = resolver
        self._lookups = asyncio.Semaphore(lookups_max)
        self._domains: dict[str, asyncio.Semaphore] = {}
        # Lookups by domain that run or wait.
        self._pending: Counter[str] = Counter()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError if there are none, or there is no answer in time."""
        # The bound of the domain comes first: those that wait for it hold no lookup.
        async with self._bound_of(registered_domain(host)), self._lookups:
            try:
                async with asyncio.timeout(LOOKUP_MAX_S):
                    return await self._resolver.resolve(host, port, family)
            except TimeoutError:
                raise OSError(None, "no answer of the name servers in time") from None

    async def close(self) -> None:
        """Close the resolver's sockets."""
        await self._resolver.close()

    @asynccontextmanager
    async def _bound_of(self, domain: str) -> AsyncIterator[None]:
        bound = self._domains.setdefault(domain, asyncio.Semaphore(PER_DOMAIN_MAX))
        self._pending[domain] += 1
        try:
            async with bound:
                yield
        finally:
            self._pending[domain] -= 1
            if not self._pending[domain]:
                del self._pending[domain], self._domains[domain]
