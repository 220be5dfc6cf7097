"""What the HTTP protocol refuses below /dashboard and /approve is a page, wherever the path can be read."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.edge.refusals import _path_in
from api.edge.unread import HEAD_BYTES_MAX, HEADER_LINES_MAX
from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, served
from tests.support.raw_http import RawResponse, connected

# Nothing here depends on the database.
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

TIMEOUT_S = 1.5
HTML, JSON = b"text/html; charset=utf-8", b"application/problem+json"
PAGES = (b"/dashboard", b"/dashboard/", b"/dashboard/simulator?a=b", b"/approve/abc", b"/api/payments/approve/abc")
NO_PAGES = (b"/dashboards", b"/dashboardx/y", b"/api/v1/payments", b"/approve", b"/x/dashboard/")
# What is sent before and behind the path, and the status with which it is refused.
REFUSED: dict[str, tuple[bytes, bytes, int]] = {
    "too large": (b"POST ", b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
    "no host": (b"GET ", b" HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET ", b" HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "many headers": (b"GET ", b" HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (HEADER_LINES_MAX + 1) + b"\r\n", 431),
    "large head": (b"GET ", b" HTTP/1.1\r\nHost: x\r\nA: " + b"b" * HEAD_BYTES_MAX, 431),
    "unknown method": (b"FOO ", b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "method in lower case": (b"get ", b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two lengths": (b"POST ", b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "length and chunks": (
        b"POST ",
        b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "another coding": (b"POST ", b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "fragment": (b"GET ", b"#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "another version": (b"GET ", b" HTTP/3.0\r\nHost: x\r\n\r\n", 400),
    "no version": (b"GET ", b"\r\nHost: x\r\n\r\n", 400),
    "absolute and wrong": (b"GET http://x", b" HTTP/1.1\r\n\r\n", 400),
    "bare line feed": (b"GET ", b" HTTP/1.1\nHost: x\r\n", 400),
    "bad chunk": (b"POST ", b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
}
LATE = {
    "head": (b"GET ", b" HTTP/1.1\r\nHost: x\r\n"),
    "body": (b"POST ", b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na"),
}


@asynccontextmanager
async def running(make_settings: Callable[..., Settings], **changes: Any) -> AsyncIterator[RunningApi]:
    """The API in the real server."""
    runtime = open_runtime(make_settings(request_timeout_s=TIMEOUT_S, **changes))
    async with served(runtime) as running_api:
        yield running_api
    await runtime.close()


async def answered(api: RunningApi, request: bytes, *before: bytes) -> RawResponse:
    """The last answer on a connection on which this is sent."""
    async with connected(api.url) as connection:
        for number, earlier in enumerate(before, 1):
            await connection.send(earlier)
            await connection.responses(number)
        await connection.send(request)
        return (await connection.until_closed())[-1]


def require_page(answer: RawResponse, status: int) -> None:
    assert (answer.status, answer.header(b"content-type"), answer.closes) == (status, HTML, True)
    assert answer.header(b"content-length") == b"%d" % len(answer.body)
    assert answer.header(b"content-security-policy")
    assert answer.header(b"x-correlation-id")
    assert b"<h1" in answer.body


@on_sqlite
@pytest.mark.parametrize("rate_limit", [None, "1000/minute"])
async def test_whatever_the_protocol_refuses_at_a_page_is_a_page(
    make_settings: Callable[..., Settings], rate_limit: str | None
) -> None:
    async with running(make_settings, rate_limit_address=rate_limit) as api:
        for name, (before, behind, status) in REFUSED.items():
            for path in PAGES:
                if name == "fragment" and b"?" in path:
                    continue
                require_page(await answered(api, before + path + behind), status)
            for path in NO_PAGES:
                answer = await answered(api, before + path + behind)
                assert (answer.status, answer.header(b"content-type")) == (status, JSON), (name, path)


@on_sqlite
async def test_whatever_is_late_at_a_page_is_a_page(make_settings: Callable[..., Settings]) -> None:
    async with running(make_settings) as api:
        for before, behind in LATE.values():
            for path, kind in ((b"/dashboard/simulator", HTML), (b"/approve/abc", HTML), (b"/dashboards", JSON)):
                answer = await answered(api, before + path + behind)
                assert (answer.status, answer.header(b"content-type")) == (408, kind), path


@on_sqlite
async def test_a_later_request_of_a_connection_is_judged_by_its_own_path(
    make_settings: Callable[..., Settings],
) -> None:
    page, health = b"GET /dashboard/sign-in HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with running(make_settings) as api:
        for end in (b" HTTP/1.1\r\n\r\n", b" HTTP/1.1\nx", b"#x HTTP/1.1\r\nHost: x\r\n\r\n"):
            require_page(await answered(api, b"GET /dashboard" + end, health), 400)
            answer = await answered(api, b"GET /health" + end, page)
            assert (answer.status, answer.header(b"content-type")) == (400, JSON)
        assert (await answered(api, b"GET /health HTTP/1.1\r\n", page)).header(b"content-type") == JSON
        require_page(await answered(api, b"GET /dashboard HTTP/1.1\r\n", health), 408)


@on_sqlite
async def test_the_page_of_a_refusal_links_below_the_prefix(make_settings: Callable[..., Settings]) -> None:
    async with running(make_settings, root_path="/shop") as api:
        for request, status in (
            (b"GET /dashboard/x HTTP/1.1\r\n\r\n", 400),
            (b"POST /dashboard HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 413),
        ):
            answer = await answered(api, request)
            require_page(answer, status)
            assert b'href="/shop/dashboard"' in answer.body
            assert b'="/dashboard' not in answer.body


@on_sqlite
async def test_without_the_dashboard_there_is_none_of_its_pages(make_settings: Callable[..., Settings]) -> None:
    async with running(make_settings, dashboard="off") as api:
        for name, (before, behind, status) in REFUSED.items():
            answer = await answered(api, before + b"/dashboard" + behind)
            assert (answer.status, answer.header(b"content-type")) == (status, JSON), name
            require_page(await answered(api, before + b"/approve/x" + behind), status)


@pytest.mark.parametrize(
    ("start", "path"),
    [
        (b"GET /dashboard HTTP/1.1\r\n", "/dashboard"),
        (b"GET /dash%62oard/%C3%A9 HTTP/1.1\r\n", "/dashboard/\u00e9"),
        (b"GET /dashboard?x", "/dashboard"),
        (b"GET HTTPS://x:1/dashboard#", "/dashboard"),
        (b"! /\xff\r", "/\ufffd"),
        # More of the last part may follow.
        (b"GET /dashboard", "/"),
        (b"GET /dashboard/simul", "/dashboard/"),
        (b"GET http://x", ""),
        (b"GET * HTTP/1.1\r\n", ""),
        (b"GET  /dashboard HTTP/1.1\r\n", ""),
        (b"\x16\x03\x01 /dashboard ", ""),
        (b"GET", ""),
        (b"", ""),
    ],
)
def test_the_path_is_read_as_far_as_it_is_there(start: bytes, path: str) -> None:
    assert _path_in(start) == path
