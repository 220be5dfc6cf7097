"""Why an exchange failed, in words: no text names an address, a port or a host, whatever really went wrong."""

import asyncio
import errno
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey

from shared.upstream.connections import StrictConnector
from shared.webhooks.url_policy import AddressPolicy
from tests.support.certificates import Authority
from tests.support.resolvers import FixedResolver
from tests.support.servers import free_port
from worker.deliveries.failures import describe_connection_error
from worker.deliveries.ssrf_guard import guarded_socket
from worker.deliveries.webhook import WebhookAnswer, open_session, post

POLICY = AddressPolicy(allowed=(ip_network("127.0.0.0/8"), ip_network("::1/128")), own_ports=frozenset())
HOST = "internal.shop.test"


async def posted(url: str, trusts: Path | None = None, *, addresses: tuple[str, ...] = ("127.0.0.1",)) -> WebhookAnswer:
    """POST through the guard. Names lead to `addresses`; with `trusts` that authority is trusted, too."""
    connector = StrictConnector(
        limit=0,
        resolver=FixedResolver(*addresses),
        socket_factory=guarded_socket(POLICY),
        ssl=ssl.create_default_context(cafile=trusts),
    )
    async with open_session(connector, timeout_s=2, user_agent="payments/tests") as session:
        return await post(session, url, headers={}, body=b"{}")


@asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port on which a server speaks TLS."""

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def names_nothing(answer: WebhookAnswer, port: int) -> str:
    """Return the text, after a look that it names neither the host nor the address nor the port."""
    text = answer.error or ""
    for secret in (HOST, "internal", "127.0.0.1", "localhost", "::1", str(port)):
        assert secret not in text
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|\('", text)
    return text


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "::1"), ("127.0.0.1", "10.0.0.1")])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", HOST])
async def test_no_text_names_an_address_or_a_host(host: str, addresses: tuple[str, ...]) -> None:
    port = free_port()
    text = names_nothing(await posted(f"http://{host}:{port}/x", addresses=addresses), port)
    assert text.startswith(("could not connect: ", "the URL leads to an address that deliveries may not reach"))
    if addresses[1:] in {(), ("::1",)}:
        assert text == "could not connect: connection refused"


@pytest.mark.parametrize("number", [*sorted(errno.errorcode), 0])
def test_every_error_of_the_system_has_fixed_words(number: int) -> None:
    key = ConnectionKey(HOST, 5432, False, True, None, None, None)
    told = OSError(number, f"Connect call failed ('10.9.9.2', 5432): {HOST}") if number else OSError("10.9.9.2:5432")
    text = describe_connection_error(ClientConnectorError(key, told))
    assert text == f"could not connect: {os.strerror(number).lower() if number else 'no connection was opened'}"


@pytest.mark.parametrize(
    ("certificate_of", "is_trusted", "words"),
    [
        ("other.test", True, "TLS failed: the certificate is of another host"),
        ("10.9.9.9", True, "TLS failed: the certificate is of another host"),
        (HOST, False, "TLS failed: unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_does_not_fit_is_named_by_what_is_wrong(
    tmp_path: Path, certificate_of: str, is_trusted: bool, words: str
) -> None:
    authority = Authority(tmp_path)
    async with tls_server(authority.server_context(certificate_of)) as port:
        answer = await posted(f"https://{HOST}:{port}/x", authority.path if is_trusted else None)
        assert names_nothing(answer, port) == words
        by_address = await posted(f"https://127.0.0.1:{port}/x", authority.path if is_trusted else None)
        assert names_nothing(by_address, port).startswith("TLS failed: ")


async def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context(HOST, ends_at=datetime.now(UTC) - timedelta(hours=1))
    async with tls_server(context) as port:
        answer = await posted(f"https://{HOST}:{port}/x", authority.path)
        assert names_nothing(answer, port) == "TLS failed: certificate has expired"


async def test_a_server_that_speaks_no_tls() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 X\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert names_nothing(await posted(f"https://{HOST}:{port}/x"), port).startswith("TLS failed: ")


async def test_a_good_certificate_is_accepted_and_the_connection_kept(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context(HOST)
    connections: list[object] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for _ in range(2):
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    connector = StrictConnector(
        resolver=FixedResolver("127.0.0.1"), ssl=ssl.create_default_context(cafile=authority.path)
    )
    async with server, open_session(connector, timeout_s=2, user_agent="payments/tests") as session:
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/x"
        for _ in range(2):
            assert (await post(session, url, headers={}, body=b"{}")).status == 200
    assert len(connections) == 1
