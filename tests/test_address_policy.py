"""The table of addresses that deliveries may reach, and the services of our own that stay closed. Nothing connects."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from shared.config.values import Address, Network, Service
from shared.webhooks.address_policy import FORBIDDEN_IPV4, FORBIDDEN_IPV6, NAT64, AddressPolicy, is_public

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
NOTHING_ALLOWED = AddressPolicy(allowed=(), own_ports=frozenset({8009}))

PUBLIC = [
    "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "192.0.1.0", "2606:2800::1",
    "2000::", "2001:200::1", "2003::1", "3ffe:ffff::1", "3fff:1000::1", "::ffff:8.8.8.8",
]  # fmt: skip
FORBIDDEN_V4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip
FORBIDDEN_V6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]
# Networks outside of 2000::/3, whatever they are for; mapped IPv4 addresses apart.
NOT_GLOBAL_UNICAST = [
    "::/128", "::1/128", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
    "200::/7", "4000::/3", "5f00::/16", "8000::/1", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip
# What `ipaddress` calls global, and we do not permit: IANA calls some special addresses globally reachable, and the
# library calls global what means nothing yet.
LIBRARY_IS_WIDER = [
    ip_network(network)
    for network in (
        "192.0.0.9/32", "192.0.0.10/32", "192.88.99.0/24", "224.0.0.0/4",
        "2001:1::1/128", "2001:1::2/128", "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28", "3fff::/20",
        "::/3", "4000::/2", "8000::/1",
    )
]  # fmt: skip


def around(network: Network) -> list[Address]:
    """The first and the last address of a network, one in its middle, and those beside it."""
    first, last = int(network[0]), int(network[-1])
    kind = IPv4Address if network.version == 4 else IPv6Address
    numbers = (first - 1, first, (first + last) // 2, last, last + 1)
    return [kind(number) for number in numbers if 0 <= number < 2**network.max_prefixlen]


def test_the_table_is_the_known_one() -> None:
    assert set(FORBIDDEN_IPV4) == {ip_network(network) for network in FORBIDDEN_V4}
    assert set(FORBIDDEN_IPV6) == {ip_network(network) for network in FORBIDDEN_V6}


@pytest.mark.parametrize("network", [*FORBIDDEN_V4, *FORBIDDEN_V6, *NOT_GLOBAL_UNICAST])
def test_an_address_that_is_not_public_is_refused(network: str) -> None:
    parsed = ip_network(network)
    for address in (parsed[0], parsed[-1], parsed[parsed.num_addresses // 2]):
        assert not NOTHING_ALLOWED.permits(address, 443)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address: str) -> None:
    assert NOTHING_ALLOWED.permits(ip_address(address), 443)


def test_the_table_permits_nothing_that_the_library_does_not_call_global() -> None:
    networks = [*map(ip_network, [*FORBIDDEN_V4, *FORBIDDEN_V6, *NOT_GLOBAL_UNICAST]), *LIBRARY_IS_WIDER]
    addresses = {address for network in networks for address in around(network)}
    for address in addresses:
        if is_public(address) != address.is_global:
            assert address.is_global, address
            assert any(address in network for network in LIBRARY_IS_WIDER), address


@pytest.mark.parametrize(
    "hidden",
    [
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "2002:a00:1::", "::7f00:1",
        "2001:0:7f00:1::", "::ffff:0:7f00:1",
    ],
)  # fmt: skip
def test_an_ipv4_address_inside_an_ipv6_address_is_refused(hidden: str) -> None:
    assert not NOTHING_ALLOWED.permits(ip_address(hidden), 443)


def test_an_allowed_network_wins_also_for_the_mapped_form_of_its_addresses() -> None:
    policy = AddressPolicy(allowed=(ip_network("172.20.0.0/16"), *NAT64), own_ports=frozenset())
    assert policy.permits(ip_address("172.20.0.5"), 80)
    assert policy.permits(ip_address("::ffff:172.20.0.5"), 80)
    assert policy.permits(ip_address("64:ff9b::808:808"), 80)
    assert not policy.permits(ip_address("172.21.0.5"), 80)
    assert not policy.permits(ip_address("::ffff:172.21.0.5"), 80)


# -- our own services


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.0.0.1", "10.80.9.7", "fd00::1",  # noqa: S104
        "64:ff9b::a50:907", "2002:a50:907::", "2001:0:a50:907::",
    ],
)  # fmt: skip
def test_our_own_ports_are_closed_at_every_address_that_is_not_public_whatever_is_allowed(address: str) -> None:
    policy = AddressPolicy(allowed=EVERYTHING, own_ports=frozenset({8009}))
    assert not policy.permits(ip_address(address), 8009)
    assert policy.permits(ip_address(address), 8010)


def test_a_receiver_at_a_public_address_may_have_the_same_port() -> None:
    assert NOTHING_ALLOWED.permits(ip_address("93.184.216.34"), 8009)


def closing(service: Service, *addresses: str, closes_unknown: bool = True) -> AddressPolicy:
    known = {service.host: frozenset(map(ip_address, addresses))} if addresses else {}
    return AddressPolicy(EVERYTHING, frozenset(), (service,), known, closes_unknown)


AUTH = Service("auth.internal", 8080)


def test_a_service_is_closed_at_each_of_its_addresses_and_nowhere_else() -> None:
    policy = closing(AUTH, "10.80.9.7", "93.184.216.34", "fd00::7")
    for closed in ("10.80.9.7", "::ffff:10.80.9.7", "64:ff9b::a50:907", "93.184.216.34", "fd00::7"):
        assert not policy.permits(ip_address(closed), 8080)
        assert policy.permits(ip_address(closed), 8081)
    for other in ("10.80.9.8", "93.184.216.35", "127.0.0.1"):
        assert policy.permits(ip_address(other), 8080)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])  # noqa: S104
def test_a_service_of_this_machine_is_closed_at_all_its_addresses(host: str) -> None:
    policy = closing(Service(host, 8080))
    for closed in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"):  # noqa: S104
        assert not policy.permits(ip_address(closed), 8080)
    assert policy.permits(ip_address("10.0.0.1"), 8080)


def test_the_port_of_a_service_whose_address_is_unknown_is_closed_at_every_address_that_is_not_public() -> None:
    policy = closing(AUTH)
    assert not policy.permits(ip_address("10.80.9.7"), 8080)
    assert policy.permits(ip_address("10.80.9.7"), 80)
    assert policy.permits(ip_address("93.184.216.34"), 8080)
    # The API judges texts only: there the connection decides.
    assert closing(AUTH, closes_unknown=False).permits(ip_address("10.80.9.7"), 8080)
