"""Whose address counts: X-Forwarded-For is believed as far as trusted hops have written it, and no further."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from api.edge.client_address import HOPS_MAX, client_address, rate_limit_key

PROXIES = tuple(ip_network(network) for network in ("10.0.0.0/8", "2001:db8:1::/48"))
CLIENT = "198.51.100.7"
MADE_UP = "203.0.113.9"


def seen(peer: str | None, *forwarded: str, trusted: Any = PROXIES) -> str | None:
    """The address of a request from `peer` with these lines of X-Forwarded-For."""
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    address = client_address({"client": peer and (peer, 1), "headers": [(b"host", b"x"), *headers]}, trusted)
    return str(address) if address else None


@pytest.mark.parametrize("trusted", [(), PROXIES])
@pytest.mark.parametrize("forwarded", [[], [MADE_UP], ["127.0.0.1"], ["10.0.0.1"], ["x"], [""]])
def test_only_a_trusted_proxy_is_believed(trusted: Any, forwarded: list[str]) -> None:
    assert seen(CLIENT, *forwarded, trusted=trusted) == CLIENT


def test_without_trusted_proxies_loopback_is_not_believed_either() -> None:
    assert seen("127.0.0.1", MADE_UP, trusted=()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([CLIENT], CLIENT),
        ([f" {CLIENT}\t"], CLIENT),
        ([f"{MADE_UP}, {CLIENT}"], CLIENT),
        ([f"10.9.9.9,{MADE_UP},{CLIENT}"], CLIENT),
        ([MADE_UP, CLIENT], CLIENT),  # two lines are one
        ([f"{MADE_UP}, {CLIENT}, 10.0.0.2"], CLIENT),
        ([f"{MADE_UP}, {CLIENT}, 2001:db8:1::5, 10.0.0.2"], CLIENT),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # only proxies: the farthest
        ([f"{CLIENT}:4711"], CLIENT),
        (["2001:db8:2::7"], "2001:db8:2::7"),
        (["[2001:db8:2::7]:4711"], "2001:db8:2::7"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        ([f"{CLIENT}, unknown"], "10.0.0.1"),
        ([f"{CLIENT}, , 10.0.0.2"], "10.0.0.2"),
        ([f"{CLIENT}, 10.0.0.999"], "10.0.0.1"),
        ([f"{CLIENT}, \xff"], "10.0.0.1"),
        (["for=198.51.100.7"], "10.0.0.1"),
        (["[" * 1000], "10.0.0.1"),
        (["9" * 10_000], "10.0.0.1"),
    ],
)
def test_the_header_is_read_from_the_right_through_trusted_hops(forwarded: list[str], address: str) -> None:
    assert seen("10.0.0.1", *forwarded) == address


def test_a_proxy_is_trusted_in_ipv6_clothes_too() -> None:
    assert seen("::ffff:10.0.0.1", CLIENT) == CLIENT
    assert seen("2001:db8:1::1", CLIENT) == CLIENT


def test_the_way_back_has_an_end() -> None:
    assert seen("10.0.0.1", ", ".join([CLIENT, *["10.0.0.2"] * HOPS_MAX])) == "10.0.0.2"
    assert seen("10.0.0.1", ", ".join([CLIENT, *["10.0.0.2"] * (HOPS_MAX - 1)])) == CLIENT


def test_a_peer_without_an_address_has_none() -> None:
    assert seen(None, CLIENT) is None
    assert seen("payments.sock", CLIENT) is None


def test_what_one_customer_has_is_counted_as_one() -> None:
    assert rate_limit_key(ip_address(CLIENT)) == CLIENT
    assert rate_limit_key(ip_address("2001:db8:2:3::1")) == rate_limit_key(ip_address("2001:db8:2:3:4:5:6:7"))
    assert rate_limit_key(ip_address("2001:db8:2:3::1")) != rate_limit_key(ip_address("2001:db8:2:4::1"))
    assert rate_limit_key(ip_address("fe80::1%eth0")) == "fe80::/64"
