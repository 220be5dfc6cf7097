"""The policy for URLs that deliveries go to: the addresses that they must never lead to, and the form that they have.

It resolves no name and opens no connection: the worker's SSRF guard asks it about each address before it connects.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from shared.config.values import Address, Network
from shared.database.tables import URL_CHARS_MAX
from shared.errors import UrlRefused

# Special-purpose addresses (RFC 6890) and multicast addresses.
FORBIDDEN: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        # IPv4: this network, private use, carrier-grade NAT, loopback, link-local (where clouds serve metadata),
        # protocol assignments, examples, 6to4 relays, benchmarks, multicast and reserved addresses.
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        # IPv6: unspecified, loopback, unique local, link-local, multicast, example and discard addresses.
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "100::/64",
        # NAT64, 6to4 and IPv4-mapped addresses: each may lead to an IPv4 address.
        "64:ff9b::/96", "2002::/16", "::ffff:0:0/96",
    )
)  # fmt: skip

DEFAULT_PORTS = {"http": 80, "https": 443}
VISIBLE_ASCII = re.compile(r"[!-~]+")
# Visible characters that no request target may have (RFC 3986, 2), and how they are escaped.
NOT_IN_TARGET = {ord(character): f"%{ord(character):02X}" for character in '"<>\\^`{|}'}
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
# An IPv6 address without a zone, which has a meaning on one machine only.
IPV6_LITERAL = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses that deliveries may reach."""

    # Networks that are reachable although FORBIDDEN contains them.
    allowed: tuple[Network, ...]
    # The ports of this service, which on loopback are closed whatever is allowed.
    own_ports: frozenset[int]

    def permits(self, address: Address, port: int) -> bool:
        """Return whether a connection to `address` and `port` may be opened."""
        real = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address  # where it would really go
        if port in self.own_ports and (real.is_loopback or real.is_unspecified):  # 0.0.0.0 reaches loopback, too
            return False
        if any(address in network or real in network for network in self.allowed):
            return True
        return not any(address in network for network in FORBIDDEN)


def check_callback_url(url: str, policy: AddressPolicy) -> None:
    """Check the URL of a callback or an endpoint, as far as its text tells. Raises UrlRefused.

    Where a host name leads is checked at every connection.
    """
    if len(url) > URL_CHARS_MAX:
        raise UrlRefused(f"is longer than {URL_CHARS_MAX} characters")
    if not VISIBLE_ASCII.fullmatch(url):
        raise UrlRefused(
            "has characters other than visible ASCII; "
            "escape them (RFC 3986), and write the name of a host in punycode (xn--...)"
        )
    if found := {character for character in url if ord(character) in NOT_IN_TARGET}:
        raise UrlRefused(f"has characters that must be escaped (RFC 3986): {' '.join(sorted(found))}")
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
    """Return `scheme://host:port` of a URL, where a connection for it goes. Return any other text unchanged."""
    try:
        parts = _split(url)
        return f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    except UrlRefused:
        return url


def split_target(url: str) -> tuple[str, str, str]:
    """Return the scheme, the host with its port, and the request target of a URL, each as it is written.

    Only what no target may have is escaped: URLs were registered that have such characters.
    """
    scheme, _, rest = url.partition("://")
    end = next((place for place, character in enumerate(rest) if character in "/?"), len(rest))
    target = rest[end:].translate(NOT_IN_TARGET)
    return scheme.lower(), rest[:end], target if target.startswith("/") else f"/{target}"


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
    """Return the address that `host` spells; None if it is a name. Raises UrlRefused for a form such as 127.1."""
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
