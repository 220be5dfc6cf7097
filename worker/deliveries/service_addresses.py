"""The addresses of our own services: deliveries must not reach them, whatever name leads there."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_address
from time import monotonic
from types import MappingProxyType

import structlog

from shared.config.values import Address, Service
from shared.webhooks.address_policy import literal_address

log = structlog.get_logger(__name__)

# Seconds between two lookups of a host, and for one lookup.
REFRESH_S, LOOKUP_MAX_S = 30.0, 5.0
# Seconds for which an address that a host no longer has stays closed: names with many addresses show a few at a time.
REMEMBERED_S = 600.0

type Lookup = Callable[[str], Awaitable[Iterable[Address]]]


async def look_up(host: str) -> set[Address]:
    """Return the addresses of a host, as the database driver and the clients of the other services find them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {ip_address(info[4][0]) for info in found}


class ServiceAddresses:
    """Knows the addresses of the hosts of `services`. Needs `run`."""

    def __init__(
        self, services: Iterable[Service], *, lookup: Lookup = look_up, clock: Callable[[], float] = monotonic
    ) -> None:
        self._hosts = sorted({service.host for service in services if literal_address(service.host) is None})
        self._lookup = lookup
        self._clock = clock
        self._seen_at: dict[str, dict[Address, float]] = {}
        self._known: dict[str, frozenset[Address]] = {}

    @property
    def known(self) -> Mapping[str, frozenset[Address]]:
        """The addresses by host, always as they are known now. A host is missing until its first lookup succeeds."""
        return MappingProxyType(self._known)

    async def run(self) -> None:
        """Look every host up, again and again, until cancelled."""
        while self._hosts:
            await self.run_once()
            await asyncio.sleep(REFRESH_S)

    async def run_once(self) -> None:
        """Look every host up once. A host that does not resolve keeps the addresses that it had."""
        await asyncio.gather(*map(self._refresh, self._hosts))

    async def _refresh(self, host: str) -> None:
        try:
            async with asyncio.timeout(LOOKUP_MAX_S):
                found = await self._lookup(host)
        except OSError as error:  # TimeoutError is an OSError
            # Safe: until an address is known, the port is closed at every address that is not public.
            log.warning("service_addresses.unresolved", host=host, error=type(error).__name__)
            return
        now = self._clock()
        seen_at = self._seen_at.setdefault(host, {})
        seen_at.update(dict.fromkeys(found, now))
        for address in [address for address, moment in seen_at.items() if now - moment > REMEMBERED_S]:
            del seen_at[address]
        self._known[host] = frozenset(seen_at)
