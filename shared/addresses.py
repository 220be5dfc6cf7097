"""Where a delivery may go: the addresses that a client's URL must never lead to, and what such a URL looks like.

It resolves no name and opens nothing: the guard of the connections asks here with the address it is about to use.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from shared.errors import UrlRefused

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

FORBIDDEN: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        # This network, private use, carrier-grade NAT, loopback, link-local (with the clouds' metadata), IETF, examples
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        # Unspecified, loopback, unique local, link-local, multicast, examples, discard
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "100::/64",
        # NAT64, 6to4 and IPv4-mapped: each may hide an IPv4 address
        "64:ff9b::/96", "2002::/16", "::ffff:0:0/96",
    )
)  # fmt: skip

DEFAULT_PORTS = {"http": 80, "https": 443}
URL_CHARS_MAX = 2048  # the column's width
VISIBLE_ASCII = re.compile(r"[!-~]+")
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
IPV6_LITERAL = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*")  # without a zone, which only means something on one machine


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which addresses deliveries may reach."""

    allowed: tuple[Network, ...]  # reachable although forbidden to everyone else
    own_ports: frozenset[int]  # of this service on loopback: closed, whatever is allowed

    def permits(self, address: Address, port: int) -> bool:
        """A connection to `address` and `port` may be opened."""
        real = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address  # where it would really go
        if port in self.own_ports and (real.is_loopback or real.is_unspecified):  # 0.0.0.0 reaches loopback, too
            return False
        if any(address in network or real in network for network in self.allowed):
            return True
        return not any(address in network for network in FORBIDDEN)


def check_callback_url(url: str, policy: AddressPolicy) -> None:
    """Check a URL that a client wants deliveries at (a callback's or an endpoint's), as far as the text tells.

    Where a name leads is checked at every connection. Raises UrlRefused.
    """
    if len(url) > URL_CHARS_MAX:
        raise UrlRefused(f"is longer than {URL_CHARS_MAX} characters")
    if not VISIBLE_ASCII.fullmatch(url):
        raise UrlRefused("has characters other than visible ASCII; escape them (RFC 3986)")
    parts = _split(url)
    if "@" in parts.netloc:
        raise UrlRefused("must not contain credentials")
    if "#" in url:
        raise UrlRefused("must not contain a fragment")
    host = parts.hostname or ""
    if "[" in parts.netloc and not IPV6_LITERAL.fullmatch(host):
        raise UrlRefused("has brackets without an IPv6 address")
    _check_host(host, _port(parts), policy)


def origin(url: str) -> str:
    """`scheme://host:port` of a URL: whom a connection for it would go to. The text itself if it is no URL."""
    try:
        parts = _split(url)
        return f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    except UrlRefused:
        return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UrlRefused("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UrlRefused("must start with http:// or https://")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise UrlRefused("has a port that is not between 1 and 65535") from None
    if port == 0:
        raise UrlRefused("has a port that is not between 1 and 65535")
    return port or DEFAULT_PORTS[parts.scheme]


def _check_host(host: str, port: int, policy: AddressPolicy) -> None:
    address = _literal(host)
    if address is None and not HOST_NAME.fullmatch(host):
        raise UrlRefused("needs a host name or an address")
    if address is not None and not policy.permits(address, port):
        raise UrlRefused("leads to an address that deliveries may not reach")


def _literal(host: str) -> Address | None:
    """The address that `host` spells, None if it is a name. Raises UrlRefused for spellings such as 127.1 or 0x7f.1."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3: always loopback
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(name)
    except ValueError:
        pass
    try:
        socket.inet_aton(name)
    except OSError:
        return None
    raise UrlRefused("has an address in an unusual form; write four decimal numbers")
