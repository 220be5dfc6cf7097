"""What is HTTP to us: the bytes of requests that are read, those that are refused, and HEAD. Raw requests."""

import asyncio
from collections.abc import Mapping
from time import monotonic

import pytest

from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.raw_http import connected, sent
from tests.support.raw_requests import HEALTH, TIMEOUT_S, payment_body, post, statuses

pytest_plugins = ["tests.support.served_fixtures"]

# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


# -- request lines


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /health HTTP/1.1", 200),
        (b"GET http://x/health HTTP/1.1", 200),
        (b"GET HTTPS://x:1/health?a=http://y HTTP/1.1", 200),
        # Without a path the target is the root.
        (b"GET http://x HTTP/1.1", 307),
        (b"GET http://x?a HTTP/1.1", 307),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"GET /health#a HTTP/1.1", 400),
        (b"GET  /health HTTP/1.1", 400),
        (b"GET /health  HTTP/1.1", 400),
        (b"GET /health HTTP/1.1 ", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\tb HTTP/1.1", 400),
        (b"GET\t/health HTTP/1.1", 400),
        (b"GET /health HTTP/1.1\t", 400),
        (b"GET /health HTTP/11", 400),
        (b"GET /health RTSP/1.0", 400),
        (b"SOURCE /health ICE/1.0", 400),
        (b"GET /health", 400),
        (b"GET HTTP/1.1", 400),
        (b"GET :///x HTTP/1.1", 400),
        (b"GET http:// HTTP/1.1", 400),
        (b"get /health HTTP/1.1", 400),
    ],
)
async def test_a_request_line_is_read_strictly(served_api: RunningApi, line: bytes, status: int) -> None:
    (response,) = await sent(served_api.url, line + b"\r\nHost: x\r\n\r\n")
    assert response.status == status


# -- what is no HTTP/1.1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /\r\n\r\n",
        b"BAD\0\r\n",
        b"get / HTTP",
        b"OPTIONS /health RTSP/1.0\r\nHost: x\r\n\r\n",
        b"SOURCE /health ICE/1.0\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: []\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %4g\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x:80:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x:y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_is_400_at_once_as_a_problem_document(
    served_api: RunningApi, request_bytes: bytes
) -> None:
    async with connected(served_api.url) as connection:
        await connection.send(request_bytes)
        async with asyncio.timeout(TIMEOUT_S - 0.3):
            (response,) = await connection.responses(1)
    assert (response.status, response.code, response.closes) == (400, "malformed_request", True)


@pytest.mark.parametrize(
    "host", [b"", b"x:", b"x:80", b"[::1]:80", b"[v1.a:b]", b"%C3%A9.example", b"127.0.0.1", b"a_b-c.example."]
)
async def test_a_valid_host_is_taken(served_api: RunningApi, host: bytes) -> None:
    assert statuses(await sent(served_api.url, b"GET /health HTTP/1.1\r\nHost: %b\r\n\r\n" % host)) == [200]


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "])
async def test_blanks_around_a_value_are_no_part_of_it(served_api: RunningApi, blanks: bytes) -> None:
    """RFC 9110, 5.5."""
    body = await payment_body(served_api)
    lines = (b"Idempotency-Key:" + blanks + b"one" + blanks, b"X-Correlation-ID:" + blanks + b"two" + blanks)
    length, ask = b"Content-Length: %d" % len(body) + blanks, b"Expect:" + blanks + b"100-continue" + blanks
    async with connected(served_api.url) as connection:
        await connection.send(post(served_api, *lines, length, ask).replace(b"Host: x", b"Host: x" + blanks))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        await connection.send(body)
        [first] = await connection.responses(1)
        assert (first.status, first.header(b"x-correlation-id")) == (202, b"two")
        # On a connection that has a transport, too.
        await connection.send(
            post(served_api, b"Idempotency-Key: one", length).replace(b"Host: x", b"Host: x" + blanks)
        )
        await connection.send(body)
        [_, second] = await connection.responses(2)
    assert (second.status, second.header(b"idempotent-replayed")) == (202, b"true")


async def test_empty_lines_before_a_request_are_ignored(served_api: RunningApi) -> None:
    assert statuses(await sent(served_api.url, b"\r\n" * 100_000 + HEALTH, b"\r", b"\n" + HEALTH, pause_s=0.05)) == [
        200,
        200,
    ]


async def test_http_1_0_needs_no_host(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        await connection.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert statuses(await connection.until_closed()) == [200]


async def test_expect_100_continue_asks_for_the_body(served_api: RunningApi) -> None:
    body = await payment_body(served_api)
    async with connected(served_api.url) as connection:
        await connection.send(post(served_api, b"Expect: 100-continue", b"Content-Length: %d" % len(body)))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        await connection.send(body)
        assert statuses(await connection.responses(1)) == [202]


async def test_http_1_0_knows_no_100_continue(served_api: RunningApi) -> None:
    async with connected(served_api.url) as connection:
        await connection.send(b"POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.1)
        await connection.send(b"{}")
        assert statuses(await connection.until_closed()) == [404]


async def test_a_head_in_pieces_is_found_wherever_it_is_cut(served_api: RunningApi) -> None:
    for cut in range(len(HEALTH)):
        async with connected(served_api.url) as connection:
            await connection.send(HEALTH[:cut])
            await asyncio.sleep(0.001)
            await connection.send(HEALTH[cut:] + HEALTH)
            assert statuses(await connection.responses(2)) == [200, 200]


# -- HEAD


async def test_head_is_answered_like_get_without_a_body(served_api: RunningApi) -> None:
    async with served_api.user() as user, served_api.client(base="") as anybody:
        payment = await accepted(user, order(await added(user)))
        for client, path in (
            (anybody, "/health"),
            (anybody, "/health/ready"),
            (anybody, "/openapi.json"),
            (anybody, "/nothing"),
            (user, "/payments"),
            (user, f"/payments/{payment['id']}"),
            (user, f"/payments/{payment['id']}/status"),
            (user, f"/payments/{payment['id']}/cancel"),
        ):
            head, got = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            if got.status_code == 200:
                assert _comparable(head.headers) == _comparable(got.headers)
                assert int(head.headers["content-length"]) > 0
        began = monotonic()
        answer = await user.head(f"/payments/{payment['id']}", headers={"Prefer": "wait=25"})
        assert (answer.status_code, monotonic() - began < 5) == (200, True)


def _comparable(headers: Mapping[str, str]) -> dict[str, str]:
    # The figures in /health and /health/ready change, and their length with them.
    changing = {"x-correlation-id", "date", "retry-after", "content-length"}
    return {name: value for name, value in headers.items() if name not in changing}
