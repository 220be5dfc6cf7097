"""Flows: the deliveries of one receiver to one origin, which share connections, slots and fate.

A flow says whose it is and where it leads, so that shares can be counted for each of both.
"""

from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

# Sites that are kept in memory: to find one takes longer than to send a turn of the queue.
SITES_CACHED = 10_000
# Labels below a two-letter top-level domain under which names are registered, such as example.co.uk.
REGISTRIES = frozenset({"ac", "co", "com", "edu", "gob", "gov", "ltd", "mil", "ne", "net", "nom", "or", "org", "sch"})
COUNTRY_CHARS = 2
# Bits of an address that one operator usually has as a whole.
NETWORK_BITS = {4: 24, 6: 48}


class Flow(NamedTuple):
    """The deliveries that go to one origin for one receiver."""

    # `scheme://host:port`; for the order service the name of its kind.
    origin: str
    # The endpoint's id; for callbacks, and for the order service, the same as `owner`.
    receiver: str
    # The principal that gave the URL.
    owner: str

    @property
    def site(self) -> str:
        """What one operator usually has as a whole: the registered domain, or the network of a literal address."""
        return site_of(self.origin)


@lru_cache(SITES_CACHED)
def site_of(origin: str) -> str:
    """Return the registered domain of an origin's host, or the /24 or /48 of its literal address."""
    host = origin.partition("://")[2].rpartition(":")[0]
    if not host:
        return origin
    try:
        address = ip_address(host)
    except ValueError:
        return registered_domain(host)
    return str(ip_network((address, NETWORK_BITS[address.version]), strict=False))


def registered_domain(name: str) -> str:
    """Return the part of a name that its owner has registered.

    This is a guess without the list of public suffixes: names below a shared suffix, such as those of the customers of
    one hosting company, count as one domain.
    """
    labels = name.lower().removesuffix(".").split(".")
    is_country = len(labels[-1]) == COUNTRY_CHARS
    kept = 3 if is_country and len(labels) > COUNTRY_CHARS and labels[-2] in REGISTRIES else 2
    return ".".join(labels[-kept:])
