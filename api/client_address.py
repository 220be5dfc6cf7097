"""Whose address a request comes from, also behind gateways: X-Forwarded-For, as far as trusted hops have written it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from shared.addresses import Address, Network

FORWARDED_FOR = b"x-forwarded-for"
HOPS_MAX = 20  # a longer way through proxies that we trust is a loop


def client_address(scope: Scope, trusted: Sequence[Network]) -> Address | None:
    """The nearest address that is no trusted proxy's; None where there is none, as on a Unix socket.

    Every hop appends whom it heard from, so the header is read from the right, and only while the hop that wrote
    the entry is trusted: what is left of that anybody may have made up. An entry that is no address ends the way, too.
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
    """The header's entries, the last first; several lines are one (RFC 9110, 5.3)."""
    value = b",".join(value for name, value in scope["headers"] if name == FORWARDED_FOR)
    return [entry.strip() for entry in reversed(value.decode("latin-1").rsplit(",", HOPS_MAX)[-HOPS_MAX:])]


def _address(text: str) -> Address | None:
    """The address in `text`, which some proxies write with a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
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


def limited_as(address: Address) -> str:
    """What is counted as one: an IPv4 address, or the /64 that any one customer with IPv6 has to himself."""
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
