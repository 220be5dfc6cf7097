"""TLS before a PostgreSQL that was built without it: the real protocol of PostgreSQL's TLS, ended by a proxy."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.certificates import Authority, Issued

# SSLRequest (PostgreSQL's manual, 54.7).
SSL_REQUEST = (80877103).to_bytes(4, "big")


class TlsFront:
    """Takes connections with TLS only, on `port` after a request for it and on `direct_port` from the first byte."""

    def __init__(self, target_port: int, issued: Issued, authority: Authority, *, wants_client: bool) -> None:
        self._target_port = target_port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._context.set_alpn_protocols(["postgresql"])
        self._context.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
        self.port = self.direct_port = 0
        # The version of TLS and the name of the client, for each connection.
        self.connections: list[tuple[str | None, str]] = []
        self.refused = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["TlsFront"]:
        async with (
            await asyncio.start_server(self._after_request, "127.0.0.1", 0) as server,
            await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context) as direct,
        ):
            self.port = server.sockets[0].getsockname()[1]
            self.direct_port = direct.sockets[0].getsockname()[1]
            yield self
            server.close_clients()
            direct.close_clients()

    async def _after_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (await reader.readexactly(8))[4:] != SSL_REQUEST:
                self.refused += 1
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            self.refused += 1
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate: dict[str, Any] = dict(tls.getpeercert() or {})
        names = [pair[1] for name in certificate.get("subject", ()) for pair in name]
        self.connections.append((tls.version(), str(names[0]) if names else ""))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        pumps = [asyncio.create_task(_pump(reader, up_writer)), asyncio.create_task(_pump(up_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            up_writer.close()
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
