"""The policy for addresses: which ones a delivery may be sent to.

It resolves no name and opens no connection. The addresses of our own services are given to it.
"""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from shared.config.values import Address, Network, Service


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# IPv4: special-purpose addresses (RFC 6890) and multicast addresses. In this order: this network, private use,
# carrier-grade NAT, loopback, link-local (where clouds serve metadata), private use, protocol assignments, examples,
# 6to4 relays, private use, benchmarks, examples, examples, multicast and reserved addresses.
FORBIDDEN_IPV4 = _networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
# IPv6: only what is assigned as global unicast (RFC 3513) is public. Everything else is special, or means nothing yet.
GLOBAL_IPV6 = ip_network("2000::/3")
# Within it: protocol assignments (Teredo, ORCHID, benchmarks), examples, 6to4, and examples.
FORBIDDEN_IPV6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
# NAT64 with the well-known and with a local prefix: the last four bytes are an IPv4 address.
NAT64 = _networks("64:ff9b::/96", "64:ff9b:1::/48")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses that deliveries may reach."""

    # Networks that are reachable although they are not public.
    allowed: tuple[Network, ...]
    # Ports of this service, its database and its broker. They are closed at every address that is not public, and at
    # every address of this machine, whatever is allowed.
    own_ports: frozenset[int]
    # Services that are closed at each of their addresses, whatever is allowed.
    services: tuple[Service, ...] = ()
    # The addresses of the services' hosts, as they are known at this moment.
    addresses: Mapping[str, frozenset[Address]] = field(default_factory=dict, hash=False)
    # Whether the port of a service whose addresses are unknown is closed at every address that is not public.
    closes_unknown: bool = False

    def permits(self, address: Address, port: int) -> bool:
        """Return whether a connection to `address` and `port` may be opened."""
        # An IPv4-mapped address is judged as the IPv4 address.
        real = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
        if self._is_own(tuple(_forms(real)), port):
            return False
        if any(address in network or real in network for network in self.allowed):
            return True
        return is_public(real)

    def names_service(self, host: str, port: int) -> bool:
        """Return whether `host` and `port` are those of a service that is closed, by its name in the settings."""
        name = host.removesuffix(".")
        return any(service.port == port and service.host.removesuffix(".") == name for service in self.services)

    def _is_own(self, forms: tuple[Address, ...], port: int) -> bool:
        """Return whether one of our own services may listen at one of these addresses."""
        if port in self.own_ports and any(not is_public(form) or is_of_this_machine(form) for form in forms):
            return True
        return any(service.port == port and self._is_at(service, forms) for service in self.services)

    def _is_at(self, service: Service, forms: tuple[Address, ...]) -> bool:
        known = _spelled(service.host) or self.addresses.get(service.host)
        if known is None:
            return self.closes_unknown and not all(is_public(form) for form in forms)
        if any(form in known for form in forms):
            return True
        # A service on this machine may listen at each of its addresses.
        return any(map(is_of_this_machine, forms)) and any(map(is_of_this_machine, known))


def is_public(address: Address) -> bool:
    """Return whether `address` is an ordinary address of the internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in FORBIDDEN_IPV4)
    if address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    return address in GLOBAL_IPV6 and not any(address in network for network in FORBIDDEN_IPV6)


def is_of_this_machine(address: Address) -> bool:
    """Return whether `address` leads to this machine: loopback, or an address of one of its interfaces."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    try:
        # Binding sends nothing, and it works for addresses of this machine only.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def literal_address(host: str) -> Address | None:
    """Return the address that `host` spells, or None. `localhost` always leads to loopback (RFC 6761, 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host)
    except ValueError:
        return None


def _spelled(host: str) -> frozenset[Address] | None:
    address = literal_address(host)
    return None if address is None else frozenset(_forms(address))


def _forms(address: Address) -> Iterator[Address]:
    """Return the address, and the IPv4 addresses to which a translator may take it."""
    yield address
    if isinstance(address, IPv6Address):
        translated = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
        yield from (each for each in translated if each is not None)
        if any(address in network for network in NAT64):
            yield IPv4Address(int(address) & 0xFFFF_FFFF)
