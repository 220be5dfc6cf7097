"""The bytes of a registered URL: they are sent as they are, or refused when they are registered."""

from ipaddress import ip_network

import pytest

from shared.errors import UrlRefused
from shared.webhooks.url_policy import AddressPolicy, check_callback_url, split_target
from tests.support.raw_receivers import OK, raw_receiver, saying
from worker.deliveries.ssrf_guard import guarded_connector
from worker.deliveries.webhook import open_session, post

LOOPBACK = AddressPolicy(allowed=(ip_network("127.0.0.0/8"),), own_ports=frozenset())

TARGETS = [
    "/h%28x%29%2Fy?sig=a%2Fb%2Bc%3D%3D&e=%40%7E%41",
    "/%7E%41",
    "/%e4%E4",
    "/a/../b/./c",
    "/%2e%2e/x/%2E",
    "/a//b///",
    "//x",
    "/x?",
    "/x??",
    "/x?a=b?c/d",
    "/x?=",
    "/x?a&b&&c=",
    "/%zz?%",
    "/x?a=1+2%2B3%20",
    "/x?url=https%3A%2F%2Fother.example%2F%3Fy",
    "/x?url=https://other.example/?y",
    "/:;@,!$&'()*+=-._~",
    "/x?[]=1&a[b]=2",
    "/x;v=1/y?;",
    "/bucket/key?X-Amz-Credential=AKIA%2F20261127%2Feu%2Fs3&X-Amz-Signature=0a1b&X-Amz-SignedHeaders=host",
    "/container?sv=2026-01-01&sr=b&sig=Zm9v%2BYmFy%2F%3D&se=2026-12-01T00%3A00%3A00Z",
    "/%F0%9F%92%B6",
    "/" + "x" * 1_900,
    "/",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_target_arrives_byte_for_byte(target: str) -> None:
    async with (
        raw_receiver(saying(OK)) as shop,
        open_session(guarded_connector(LOOPBACK), timeout_s=5, user_agent="payments/tests") as session,
    ):
        url = f"http://127.0.0.1:{shop.port}{target}"
        check_callback_url(url, LOOPBACK)
        answer = await post(session, url, headers={}, body=b"{}")
        assert answer.status == 200
        assert [request.target for request in shop.requests] == [target.encode()]


@pytest.mark.parametrize(("rest", "target"), [("", b"/"), ("?", b"/?"), ("?a=%2F", b"/?a=%2F"), ("/?a", b"/?a")])
async def test_a_url_without_a_path_gets_the_root(rest: str, target: bytes) -> None:
    async with (
        raw_receiver(saying(OK)) as shop,
        open_session(guarded_connector(LOOPBACK), timeout_s=5, user_agent="payments/tests") as session,
    ):
        await post(session, f"HTTP://127.0.0.1:{shop.port}{rest}", headers={}, body=b"{}")
        assert [request.target for request in shop.requests] == [target]
        assert f"\r\nHost: 127.0.0.1:{shop.port}\r\n".encode() in shop.requests[0].head


@pytest.mark.parametrize("character", list('"<>\\^`{|}'))
@pytest.mark.parametrize("where", ["/a{}b", "/x?a={}", "/{}"])
def test_what_no_target_may_have_is_refused_and_named(character: str, where: str) -> None:
    url = "https://shop.example" + where.replace("{}", character)
    with pytest.raises(UrlRefused, match="must be escaped"):
        check_callback_url(url, LOOPBACK)


def test_every_other_visible_character_may_be_in_a_target() -> None:
    refused = set('"<>\\^`{|}#')
    every = "".join(character for character in map(chr, range(33, 127)) if character not in refused)
    check_callback_url(f"https://shop.example/{every}?{every}", LOOPBACK)


async def test_a_url_that_was_registered_with_such_a_character_is_sent_with_it_escaped() -> None:
    assert split_target('https://shop.example:8443/{id}?a="|"') == (
        "https",
        "shop.example:8443",
        "/%7Bid%7D?a=%22%7C%22",
    )
