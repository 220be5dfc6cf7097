"""Addresses that no delivery may reach: in a URL, as addresses and at the moment of connecting."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
from aiohttp import ClientSession

from shared.errors import UrlRefused
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.url_policy import check_callback_url, origin
from tests.support.receivers import receiver, tripwire
from tests.support.resolvers import FixedResolver
from worker.deliveries.ssrf_guard import AddressRefused, guarded_connector, guarded_socket
from worker.deliveries.webhook import WebhookAnswer, open_session, post

NOTHING_ALLOWED = AddressPolicy(allowed=(), own_ports=frozenset({8009}))
LOOPBACK = AddressPolicy(allowed=(ip_network("127.0.0.0/8"), ip_network("::1/128")), own_ports=frozenset({8009}))

# -- the text of a URL


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/hooks?a=1&b=%20",
        "http://shop.example",
        "https://shop.example:8443/",
        "HTTPS://Shop.Example/",
        "https://xn--bcher-kva.example/",
        "https://a_b.internal-name.example./",
        "https://93.184.216.34/",
        "https://[2606:2800::1]:8443/",
        "https://shop.example/" + "x" * (2048 - 21),
    ],
)
def test_a_callback_url_that_may_be_used(url: str) -> None:
    check_callback_url(url, NOTHING_ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "//shop.example/",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://:443/",
        "https://user@shop.example/",
        "https://user:password@shop.example/",
        "https://@shop.example/",
        "https://shop.example/#top",
        "https://shop.example/#",
        "https://shop.example:0/",
        "https://shop.example:65536/",
        "https://shop.example:http/",
        "https://shop.example:-1/",
        "https://shop.example/" + "x" * (2048 - 20),
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://shop.example/\0",
        "https://bücher.example/",
        "https://shop..example/",
        "https://.example/",
        "https://shop%2eexample/",
        "https://shop.example\\@10.0.0.1/",
        "https://[::1/",
        "https://[shop.example]/",
        "https://[v1.fe80]/",
        "https://[2606:2800::1%25eth0]/",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 130}example/",
        "http://10.0.0.1/",
        "http://127.0.0.1:9000/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://api.localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
    ],
)
def test_a_callback_url_that_is_refused_at_once(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        check_callback_url(url, NOTHING_ALLOWED)
    assert len(url) < 5 or url not in str(refused.value)


def test_the_policy_decides_about_literal_addresses() -> None:
    check_callback_url("http://127.0.0.1:9000/", LOOPBACK)
    check_callback_url("http://localhost:9000/", LOOPBACK)
    for url in ("http://127.0.0.1:8009/", "http://localhost:8009/", "http://10.0.0.1/"):
        with pytest.raises(UrlRefused):
            check_callback_url(url, LOOPBACK)


def test_the_origin_of_a_url_is_whom_a_connection_goes_to() -> None:
    assert origin("HTTPS://Shop.example/x?y") == "https://shop.example:443"
    assert origin("http://shop.example:8080") == "http://shop.example:8080"
    assert origin("nonsense") == "nonsense"


# -- the connection


@asynccontextmanager
async def session_under(policy: AddressPolicy, *addresses: str) -> AsyncIterator[ClientSession]:
    resolver = FixedResolver(*addresses) if addresses else None
    connector = guarded_connector(policy, resolver=resolver)
    async with open_session(connector, timeout_s=2, user_agent="payments/tests") as session:
        yield session


async def post_to(url: str, policy: AddressPolicy, *addresses: str) -> WebhookAnswer:
    async with session_under(policy, *addresses) as session:
        return await post(session, url, headers={}, body=b"{}")


def refused(answer: WebhookAnswer) -> bool:
    return answer.status is None and answer.error == str(AddressRefused())


async def test_a_literal_address_is_judged_at_the_connection() -> None:
    async with tripwire() as (url, contacts):
        assert refused(await post_to(url, NOTHING_ALLOWED))
        assert contacts == []
    async with receiver() as shop:
        assert (await post_to(shop.url, LOOPBACK)).status == 200


async def test_a_name_is_judged_by_the_address_it_leads_to() -> None:
    async with tripwire() as (url, contacts):
        port = url.split(":")[2]
        assert refused(await post_to(f"http://shop.example:{port}", NOTHING_ALLOWED, "127.0.0.1"))
        assert contacts == []


async def test_a_name_with_several_addresses_reaches_only_the_permitted_one() -> None:
    policy = AddressPolicy(allowed=(ip_network("127.0.0.2/32"),), own_ports=frozenset())
    async with receiver() as shop:
        url = f"http://shop.example:{shop.port}/"
        answer = await post_to(url, policy, "10.0.0.1", "::1", "127.0.0.1")
        assert refused(answer)
        assert shop.requests == []
        assert (await post_to(url, AddressPolicy(LOOPBACK.allowed, frozenset()), "10.0.0.1", "127.0.0.1")).status == 200


async def test_a_name_that_leads_to_one_of_our_own_ports_is_refused() -> None:
    async with receiver() as ourselves:
        policy = AddressPolicy(allowed=LOOPBACK.allowed, own_ports=frozenset({ourselves.port}))
        assert refused(await post_to(ourselves.url, policy))
        assert refused(await post_to(f"http://shop.example:{ourselves.port}/", policy, "127.0.0.1"))
        assert refused(await post_to(f"http://shop.example:{ourselves.port}/", policy, "::ffff:127.0.0.1"))
        assert ourselves.requests == []


async def test_a_name_that_changes_its_address_is_judged_at_every_connection() -> None:
    async with receiver() as shop:
        resolver = FixedResolver("127.0.0.1")
        policy = AddressPolicy(allowed=(ip_network("127.0.0.1/32"),), own_ports=frozenset())
        connector = guarded_connector(policy, resolver=resolver)
        async with open_session(connector, timeout_s=2, user_agent="payments/tests") as session:
            url = f"http://shop.example:{shop.port}/"
            close = {"connection": "close"}
            assert (await post(session, url, headers=close, body=b"")).status == 200
            resolver.addresses = ("127.0.0.3",)
            connector.clear_dns_cache()
            assert refused(await post(session, url, headers=close, body=b""))


async def test_a_proxy_of_the_environment_would_not_be_used() -> None:
    async with session_under(LOOPBACK) as session:
        assert not session.trust_env


def test_a_socket_is_opened_only_after_the_address_passed() -> None:
    factory = guarded_socket(LOOPBACK)
    with pytest.raises(AddressRefused) as error:
        factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 80)))
    assert "10.0.0.1" not in str(error.value)
    with factory((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 80, 0, 0))) as opened:
        assert opened.family == socket.AF_INET6
