"""The address of a request's client, also behind proxies.

X-Forwarded-For is believed only as far as trusted proxies have written it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from shared.config.values import Address, Network

FORWARDED_FOR = b"x-forwarded-for"
# A longer chain of trusted proxies can only be a loop.
HOPS_MAX = 20


def client_address(scope: Scope, trusted: Sequence[Network]) -> Address | None:
    """Return the nearest address that is not a trusted proxy's; None without any address, as on a Unix socket.

    Every proxy appends the address that it received the request from. The header is therefore read from the right, and
    only while the proxy that wrote an entry is trusted: entries left of that may be forged. An entry that is not an
    address ends the search, too.
    """
    peer = scope["client"]
    address = _address(peer[0]) if peer else None
    if not trusted or not _is_among(address, trusted):
        return address
    for entry in _entries(scope):
        hop = _address(entry)
        if hop is None:
            return address
        address = hop
        if not _is_among(address, trusted):
            return address
    return address


def _entries(scope: Scope) -> list[str]:
    """Return the entries of the header, the last one first. Several header lines count as one (RFC 9110, 5.3)."""
    value = b",".join(value for name, value in scope["headers"] if name == FORWARDED_FOR)
    return [entry.strip() for entry in reversed(value.decode("latin-1").rsplit(",", HOPS_MAX)[-HOPS_MAX:])]


def _address(text: str) -> Address | None:
    """Parse an address, which some proxies write with a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_among(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def rate_limit_key(address: Address) -> str:
    """Return what is counted as one client: an IPv4 address, or of IPv6 the /64, which belongs to one customer."""
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
