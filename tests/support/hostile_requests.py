"""Requests that no client library would send, and a real API process that they go to over raw sockets."""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from shared.config.settings import Settings
from tests.support.api_client import VISA
from tests.support.processes import PaymentsProcess

type MakeSettings = Callable[..., Settings]

SEED = 20261124

# After this long without a byte the server waits for more, and the client goes.
QUIET_S = 0.3
ANSWER_BYTES_MAX = 200_000
AT_ONCE = 100
INJECTED = b"x-injected"
CVV = "9173"
TOKENS = (b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\xff", b"%00", b"{", b"\\u0000")
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(slots=True)
class Target:
    """An API and a worker, and what was sent to them."""

    api: PaymentsProcess
    worker: PaymentsProcess
    settings: Settings
    token: str
    sent: Counter[str] = field(default_factory=Counter)

    @property
    def rss(self) -> int:
        return int(psutil.Process(self.api.pid).memory_info().rss)

    async def send(self, *parts: bytes, pause_s: float = 0, half_closes: bool = False) -> bytes:
        """All that is answered to these bytes, until the server closes or has nothing more to say."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.port)
        answer = b""
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if half_closes:
                writer.write_eof()
            while len(answer) < ANSWER_BYTES_MAX:
                async with asyncio.timeout(QUIET_S):
                    if not (more := await reader.read(65_536)):
                        break
                    answer += more
        except (OSError, TimeoutError):
            pass  # it may hang up on us, or wait for what never comes
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        statuses = STATUS.findall(answer)
        assert not any(status.startswith(b"5") for status in statuses), (parts, answer)
        assert INJECTED not in answer.lower().partition(b"\r\n\r\n")[0], (parts, answer)
        assert VISA.encode() not in answer, (parts, answer)
        self.sent[statuses[0].decode() if statuses else "silence"] += 1
        return answer

    async def send_all(self, requests: Sequence[bytes]) -> None:
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(request: bytes, *, half_closes: bool) -> None:
            async with turns:
                await self.send(request, half_closes=half_closes)

        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                group.create_task(in_turn(request, half_closes=number % 5 == 0))


def payment(target: Target, *headers: bytes, body: bytes = b'{"order_id": "1"}', line: bytes = b"") -> bytes:
    """A request for a payment, with headers of one's own."""
    own = [b"Host: x", b"Authorization: Bearer " + target.token.encode(), b"Content-Type: application/json", *headers]
    return b"\r\n".join([line or b"POST /api/v1/payments HTTP/1.1", *own, b"", b""]) + body


def malformed(target: Target) -> list[bytes]:
    """Requests each of which breaks HTTP in a way of its own."""
    smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    card = VISA.encode()
    lines = [
        b"GET", b"GET /", b"GET / HTTP/9.9", b"GET / HTTP/1.1 x", b" GET / HTTP/1.1", b"G\0T / HTTP/1.1", b"\0\0\0\0",
        b"GET http://[::1 HTTP/1.1", b"GET //// HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"GET /%zz%00%ff HTTP/1.1",
        b"GET /api/v1/payments/%0d%0aX-Injected:%20yes HTTP/1.1", b"GET /api/v1/payments/%00 HTTP/1.1",
        b"GET /api/v1/payments?limit=99999999999999999999999 HTTP/1.1", b"GET /api/v1/payments?cursor=%00 HTTP/1.1",
        b"GET /api/v1/payments?user_id=%ed%a0%80&status=%f0%9f%92%b3 HTTP/1.1", b"GET /api/v1/payments?& HTTP/1.1",
        b"GET /api/v1/payments/" + card + b" HTTP/1.1", b"GET /health?x=" + card + b" HTTP/1.1",
        b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0", b"TRACE / HTTP/1.1", b"get / HTTP/1.1",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]  # fmt: skip
    headers = [
        [b"Content-Length: -1"], [b"Content-Length: 1e3"], [b"Content-Length: 99999999999999999999999"],
        [b"Content-Length: 17", b"Content-Length: 18"], [b"Content-Length: 17, 17"], [b"Content-Length: +17"],
        [b"Content-Length: 0x11"], [b"Content-Length:"], [b"Content-Length: \xb2"], [b"Content-Length: 65537"],
        [b"Content-Length: 17", b"Transfer-Encoding: chunked"], [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: xchunked"], [b"Transfer-Encoding:\x0bchunked"], [b"Transfer-Encoding: chunked"],
        [b"X-Correlation-ID: a\nX-Injected: yes", b"Content-Length: 17"], [b"X-Correlation-ID: a\rX-Injected: yes"],
        [b"X-Correlation-ID: a\0b", b"Content-Length: 17"], [b"X-Correlation-ID: " + b"a" * 60_000],
        [b"Idempotency-Key: \xff\xfe\x00", b"Content-Length: 17"], [b"Idempotency-Key: " + card, b"Content-Length: 17"],
        [b"Idempotency-Key: a", b"Idempotency-Key: b", b"Content-Length: 17"], [b"Prefer: wait=" + b"9" * 5_000],
        [b"Name Of Header: x"], [b": no name"], [b"no colon"], [b" folded: x"], [b"X: " + b"a" * 500_000],
        [b"X-%d: x" % n for n in range(5_000)], [b"Authorization: Bearer " + b"e30." * 9_000, b"Content-Length: 17"],
        [b"Authorization: \xff", b"Content-Length: 17"], [b"Content-Type: \xff/\x01", b"Content-Length: 17"],
        [b"Content-Type: application/json; charset=\xff", b"Content-Length: 17"], [b"Expect: 100-continue"],
        [b"Content-Encoding: gzip", b"Content-Length: 17"], [b"Upgrade: websocket", b"Connection: Upgrade"],
        [b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"],
    ]  # fmt: skip
    chunks = [
        b"zz\r\nx\r\n0\r\n\r\n", b"-1\r\nx\r\n", b"ffffffffffffffffff\r\nx\r\n", b"1\r\nxx\r\n0\r\n\r\n", b"5\r\nab",
        b"1;" + b"e" * 50_000 + b"\r\nx\r\n0\r\n\r\n", b"0\r\nX-Injected: yes\r\n\r\n", b"1\nx\n0\n\n",
        b"0\r\n\r\n" + smuggled, b"10000\r\n" + b" " * 65_536 + b"\r\n1\r\n \r\n0\r\n\r\n",
    ]  # fmt: skip
    secret = b'{"type": "CREDIT_CARD", "payment_details": {"card_number": "%b", "cvv": "%b"' % (card, CVV.encode())
    return [
        *(line + b"\r\nHost: x\r\n\r\n" for line in lines),
        *(payment(target, *each) for each in headers),
        *(payment(target, b"Transfer-Encoding: chunked", body=each) for each in chunks),
        payment(target, b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + smuggled),
        payment(target, b"Content-Length: 500", line=b"POST /api/v1/payment-methods HTTP/1.1", body=secret),
        payment(target, b"Content-Length: %d" % len(secret), line=b"POST /" + card + b" HTTP/1.1", body=secret),
        b"\r\n" * 20_000,
        smuggled * 200,
        payment(target, b"Content-Length: 0", body=b"") * 200,
    ]


def mutated(rng: random.Random, whole: bytes) -> bytes:
    """`whole` with a few of its bytes changed, lost, doubled or cut off."""
    broken = bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(broken))
        match rng.randrange(5):
            case 0:
                broken[place] = rng.randrange(256)
            case 1:
                del broken[place : place + rng.randint(1, 9)]
            case 2:
                broken[place:place] = broken[place : place + rng.randint(1, 40)]
            case 3:
                broken[place:place] = rng.choice(TOKENS)
            case _:
                del broken[max(place, 1) :]
        broken = broken or bytearray(b"G")
    return bytes(broken)


def requests_of(target: Target, method_id: str) -> list[bytes]:
    """Requests that are in order: what is mutated."""
    intent = b'{"order_id": "m-1", "payment_method_id": "%b", "amount": 1585, "currency": "USD"}' % method_id.encode()
    details = b'{"card_number": "%b", "exp_month": 12, "exp_year": 2040, "cvv": "%b"}' % (VISA.encode(), CVV.encode())
    method = b'{"type": "CREDIT_CARD", "payment_details": %b}' % details
    as_chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(intent), intent)
    return [
        payment(target, b"Idempotency-Key: k-1", b"Content-Length: %d" % len(intent), body=intent),
        payment(target, b"Transfer-Encoding: chunked", body=as_chunks),
        payment(
            target, b"Content-Length: %d" % len(method), line=b"POST /api/v1/payment-methods HTTP/1.1", body=method
        ),
        payment(target, b"Prefer: wait=0", line=b"GET /api/v1/payments?limit=5&status=PENDING HTTP/1.1", body=b""),
    ]
