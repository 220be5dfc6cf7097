"""Hosts in the URLs that clients give: names, addresses, and what can be neither."""

import pytest

from shared.config.values import Service
from shared.errors import UrlRefused
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.host_names import WRITE_PUNYCODE
from shared.webhooks.url_policy import check_callback_url

POLICY = AddressPolicy(allowed=(), own_ports=frozenset())
LONGEST_NAME = ".".join(["a" * 63] * 3 + ["a" * 61])


def refusal(host: str, policy: AddressPolicy = POLICY) -> str:
    with pytest.raises(UrlRefused) as refused:
        check_callback_url(f"https://{host}/hook", policy)
    return str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "shop.example", "shop.example.", "SHOP.example.:8443", "redis", "a_b.internal", "_dmarc.shop.example",
        "xn--bcher-kva.example", "xn--strae-oqa.example", "xn--fsqu00a.xn--0zwm56d", "r3---sn-4g5e.example",
        "1.example", "123.example.com", "a-b.example", "1a", "0xg.example",
        LONGEST_NAME, f"{LONGEST_NAME}.", f"{'a' * 63}.example",
        "93.184.216.34", "[2606:2800::1]", "[::ffff:8.8.8.8]",
    ],
)  # fmt: skip
def test_a_name_or_an_address_is_taken(host: str) -> None:
    check_callback_url(f"https://{host}/hook", POLICY)


@pytest.mark.parametrize(
    "host",
    [
        "-a.b", "a-.b", "a.b-", "a.-b", "-", "_", "_._", "a._.b", "xn--.com", "xn--a.com", "xn---.com", "xn--a-.com",
        "a..b", ".a", "a..", ".", f"{'a' * 64}.example", f"{LONGEST_NAME}a", f"a.{LONGEST_NAME}", "a b.example",
        "a,b.example", "a+b.example", "a*.example", "*.example", "a!b", "a$b", "a'b", "a(b)", "a;b", "a=b",
        "a~b", "a&b",
    ],
)  # fmt: skip
def test_what_can_be_no_name_is_refused(host: str) -> None:
    assert refusal(host)


@pytest.mark.parametrize(
    "host",
    [
        "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "08.8.8.8", "93.184.216.34.", "0x5db8d822", "0x5d.1",
        "1572395042", "example.1", "example.0x1", "1.2.3.0x", "0x", "example.12.", "127.1", "0177.0.0.1",
        "00000.example.0",
    ],
)  # fmt: skip
def test_a_number_that_is_no_address_is_refused(host: str) -> None:
    assert "address" in refusal(host)


@pytest.mark.parametrize("host", ["localhost.", "LOCALHOST.", "api.localhost."])
def test_a_localhost_that_never_resolves_is_refused_even_where_loopback_is_open(host: str) -> None:
    assert "without the dot" in refusal(host)


@pytest.mark.parametrize(
    "host",
    [
        "bücher.example", "b%C3%BCcher.example", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
        "\uff53hop.example", "a\u202eb.example",
    ],
)  # fmt: skip
def test_a_host_that_is_not_ascii_is_to_be_written_in_punycode(host: str) -> None:
    assert refusal(host) == WRITE_PUNYCODE
    assert "write the name as xn--... (punycode)" in WRITE_PUNYCODE


def test_a_path_that_is_not_ascii_is_to_be_escaped() -> None:
    with pytest.raises(UrlRefused, match="escape them"):
        check_callback_url("https://shop.example/bücher", POLICY)


@pytest.mark.parametrize(
    "host", ["[::1%25eth0]", "[fe80::1%eth0]", "[1.2.3.4]", "[]", "[:]", "[::1", "[::1]a", "[v1.a]"]
)
def test_brackets_hold_an_ipv6_address(host: str) -> None:
    assert refusal(host)


def test_a_service_of_our_own_is_refused_by_its_name_at_its_port_only() -> None:
    policy = AddressPolicy((), frozenset(), (Service("auth.internal", 8080), Service("keys.example", 443)))
    for host in ("auth.internal:8080", "AUTH.internal.:8080", "keys.example"):
        assert "may not reach" in refusal(host, policy)
    check_callback_url("https://auth.internal/", policy)
    check_callback_url("http://keys.example/", policy)


def test_http_can_be_refused() -> None:
    check_callback_url("http://shop.example/", POLICY)
    with pytest.raises(UrlRefused, match="must start with https://"):
        check_callback_url("http://shop.example/", POLICY, allows_http=False)
    check_callback_url("HTTPS://shop.example/", POLICY, allows_http=False)
