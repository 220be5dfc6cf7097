"""Bytes that no client library sends, through a real connection: the server survives them without a 5xx."""

import asyncio

from shared.runtime import Runtime
from tests.support.api_client import served

pytest_plugins = ["tests.support.api_fixtures"]


async def spoken(port: int, request: bytes) -> bytes:
    """What the server says to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_the_real_server_survives_what_no_client_library_sends(runtime: Runtime) -> None:
    async with served(runtime) as running_api:
        port = int(running_api.url.rpartition(":")[2])
        bearer = running_api.user().headers["authorization"].encode()
        start = b"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + bearer + b"\r\n"
        get = b"GET /api/v1/payments HTTP/1.1\r\nConnection: close\r\nAuthorization: " + bearer + b"\r\n"
        requests = [
            b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            start + b"Content-Length: -1\r\n\r\n",
            start + b"Content-Length: x\r\n\r\n",
            start + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
            start + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            start + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            start + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",  # and hangs up
            start + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            start + b"Content-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
            start + b"Idempotency-Key: \xff\xfe\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            start + b"X-Correlation-ID: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            get + b"Host: [\r\n\r\n",
            get + b"Host: \xff\r\n\r\n",
            get + b"Host: a b\r\n\r\n",
            get + b"Host: x:99999\r\nX-Correlation-ID: a\x01b\r\n\r\n",
            get.replace(b"/payments ", b"/payments?limit=\xff ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/\xff\xfe ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/%ff%00%0d%0aX-Evil:%201 ") + b"Host: x\r\n\r\n",
            get.replace(b"/api/v1/payments ", b"http://evil.example/api/v1/payments/x ") + b"Host: x\r\n\r\n",
            get.replace(b"/api/v1/payments ", b"* ") + b"Host: x\r\n\r\n",
            get.replace(b"/payments ", b"/payments/" + b"a" * 60_000 + b" ") + b"Host: x\r\n\r\n",
            get + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
            get + b"Prefer: wait=99999999999999999999\r\nIf-None-Match: \xff\r\nHost: x\r\n\r\n",
        ]
        answers = await asyncio.gather(*(spoken(port, request) for request in requests))
        for request, answer in zip(requests, answers, strict=True):
            status = answer.split(b" ", 2)[1] if answer else b"400"  # or no answer: the client had gone
            assert not status.startswith(b"5"), (request[:200], answer[:300])
            assert b"x-evil" not in answer.lower().partition(b"\r\n\r\n")[0]
        assert (await running_api.user().get("/payments")).status_code == 200
