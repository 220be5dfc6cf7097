"""What an answer comes to that is long, odd or followed by something: the status of a whole header decides.

The receivers write bytes to a socket. Most of these answers no HTTP library would send.
"""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from aiohttp import ClientSession

from shared.upstream.connections import HEAD_BYTES_MAX, HEAD_LINES_MAX
from shared.webhooks.attempts import RESPONSE_BYTES_MAX
from shared.webhooks.url_policy import AddressPolicy
from tests.support.raw_receivers import OK, dripping, raw_receiver, resetting, saying, saying_and_closing
from worker.deliveries.ssrf_guard import guarded_connector
from worker.deliveries.webhook import BODY_WITHIN_S, WebhookAnswer, open_session, post

LOOPBACK = AddressPolicy(allowed=(ip_network("127.0.0.0/8"),), own_ports=frozenset())
TIMEOUT_S = 0.6
OK_LINE = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"content-length: 0\r\n\r\n"


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with open_session(guarded_connector(LOOPBACK), timeout_s=TIMEOUT_S, user_agent="payments/tests") as opened:
        yield opened


async def answer_to(session: ClientSession, *parts: bytes) -> WebhookAnswer:
    """POST to a receiver that writes these parts."""
    async with raw_receiver(saying(*parts)) as shop:
        answer = await post(session, shop.url, headers={}, body=b"{}")
        assert len(shop.requests) == 1
        return answer


def padded(size: int) -> bytes:
    """A header of exactly so many bytes."""
    rest = len(OK_LINE + b"x: \r\n" + EMPTY)
    return OK_LINE + b"x: " + b"a" * (size - rest) + b"\r\n" + EMPTY


# -- long headers


@pytest.mark.parametrize(
    "head",
    [
        OK_LINE + b"set-cookie: x=" + b"a" * 9_000 + b"\r\n" + EMPTY,
        OK_LINE + b"x-small: 0123456789\r\n" * 900 + EMPTY,
        OK_LINE + b"x-n: 1\r\n" * 200 + EMPTY,
        OK_LINE + b"x-n: 1\r\n" * (HEAD_LINES_MAX - 1) + EMPTY,
        b"HTTP/1.1 200 " + b"r" * 10_000 + b"\r\n" + EMPTY,
        padded(HEAD_BYTES_MAX),
    ],
    ids=["one of 9 KB", "many small", "200", "as many as are read", "reason of 10 KB", "as long as is read"],
)
async def test_a_long_header_is_read(session: ClientSession, head: bytes) -> None:
    answer = await answer_to(session, head)
    assert (answer.status, answer.is_whole, answer.error) == (200, True, None)
    in_parts = await answer_to(session, head[:10], head[10:7_000], head[7_000:-2], head[-2:])
    assert (in_parts.status, in_parts.is_whole, in_parts.error) == (200, True, None)


@pytest.mark.parametrize(
    "head",
    [
        padded(HEAD_BYTES_MAX + 1),
        OK_LINE + b"x-n: 1\r\n" * HEAD_LINES_MAX + EMPTY,
        OK_LINE + b"x: " + b"a" * 200_000,
        OK_LINE + b"x-n: 1\r\n" * 5_000,
    ],
    ids=["a byte more", "a line more", "a line without end", "lines without end"],
)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_header_beyond_the_bound_is_no_answer_and_the_log_says_which_status_it_had(
    session: ClientSession, head: bytes, status: int
) -> None:
    answer = await answer_to(session, head.replace(b"200", b"%d" % status, 1))
    assert (answer.status, answer.is_whole) == (status, False)
    assert answer.error == f"the receiver answered {status}, header too long (more than 65,536 bytes or 1,000 lines)"
    assert answer.duration_ms < TIMEOUT_S * 1000


async def test_interim_answers_count_against_the_bound_and_are_no_answer(session: ClientSession) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    answer = await answer_to(session, b"HTTP/1.1 100 Continue\r\n\r\n" + hints * 3 + OK)
    assert (answer.status, answer.error) == (200, None)
    endless = await answer_to(session, hints * 3_000)
    assert (endless.is_whole, "header too long" in (endless.error or "")) == (False, True)


# -- what follows a header


@pytest.mark.parametrize("status", [b"200", b"204", b"500"])
@pytest.mark.parametrize(
    "rest",
    [
        b"content-length: 4\r\n\r\nbody",
        b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"\r\nbody",
        b"content-length: 0\r\n\r\nbytes after the end",
        b"content-length: 3\r\n\r\nbody",
        b"content-length: 9\r\n\r\nbody",
        b"transfer-encoding: chunked\r\n\r\nzz\r\nbody\r\n",
        b"transfer-encoding: chunked\r\n\r\n4\r\nbody",
        b"content-length: 0\r\n\r\n" + OK,
        b"content-length: 0\r\n\r\nHTTP/1.1 408 Request Timeout\r\n\r\n",
        b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\nbody",
    ],
    ids=[
        *("length", "chunked", "no length", "bytes after", "too long", "too short", "bad chunk", "no end", "second"),
        *("408", "no gzip"),
    ],
)
@pytest.mark.parametrize("is_split", [False, True], ids=["in one packet", "after the header"])
async def test_the_status_decides_whatever_follows_the_header(
    session: ClientSession, status: bytes, rest: bytes, is_split: bool
) -> None:
    whole = b"HTTP/1.1 " + status + b" X\r\n" + rest
    end = whole.index(b"\r\n\r\n") + 4
    async with raw_receiver(saying_and_closing(*([whole[:end], whole[end:]] if is_split else [whole]))) as shop:
        answer = await post(session, shop.url, headers={}, body=b"{}")
        assert (answer.status, answer.is_whole) == (int(status), True)
        assert (answer.error is None) == (status != b"500")
        await asyncio.sleep(0.1 if is_split else 0)
        again = await post(session, shop.url, headers={}, body=b"{}")
        assert (again.status, again.is_whole) == (int(status), True)
        assert shop.requests[1].connection == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (OK_LINE + b"no colon\r\n\r\n", "answered 200, but the answer is not valid HTTP: invalid header token"),
        (OK_LINE + b"blank : x\r\n\r\n", "answered 200, but the answer is not valid HTTP: invalid header token"),
        (OK_LINE + b"nul: \0\r\n\r\n", "answered 200, but the answer is not valid HTTP: invalid HTTP header"),
        (OK_LINE + b"content-length: 0\r\n" + EMPTY, "answered 200, but the answer is not valid HTTP: duplicate "),
        (OK_LINE + b"transfer-encoding: chunked\r\n" + EMPTY, "answered 200, but the answer is not valid HTTP: "),
        (OK_LINE + b"content-length: +0\r\n\r\n", "invalid character in Content-Length"),
        (b"HTTP/1.1 500 X\r\nno colon\r\n\r\n", "the receiver answered 500, but the answer is not valid HTTP: "),
        (b"HTTP/1.2 200 OK\r\n" + EMPTY, "bad status line: invalid HTTP version"),
        (b"http/1.1 200 OK\r\n" + EMPTY, "the answer is not valid HTTP: it does not begin with HTTP/"),
        (b"ICY 200 OK\r\n" + EMPTY, "the answer is not valid HTTP: it does not begin with HTTP/"),
        (b"RTSP/1.0 200 OK\r\n" + EMPTY, "the answer is not valid HTTP: it does not begin with HTTP/"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not valid HTTP: it does not begin with HTTP/"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "the answer is not valid HTTP: it does not begin with HTTP/"),
    ],
)  # fmt: skip
async def test_what_is_no_valid_answer_is_said_in_words_with_the_status_that_was_seen(
    session: ClientSession, data: bytes, words: str
) -> None:
    for parts in ([data], [data[:20], data[20:]]):
        answer = await answer_to(session, *parts)
        assert not answer.is_whole
        assert words in (answer.error or "")
        assert answer.status == (int(data[9:12]) if data.startswith(b"HTTP/") else None)
        assert answer.duration_ms < TIMEOUT_S * 1000


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nx: 1\r\n"])
async def test_an_answer_without_the_end_of_its_header_does_not_count(session: ClientSession, said: bytes) -> None:
    seen = ": the receiver answered 200, and its header did not end" if b"200" in said else ""
    seen = seen or (said and ": the receiver sent a part of an answer") or ""
    async with raw_receiver(saying_and_closing(said)) as shop:
        answer = await post(session, shop.url, headers={}, body=b"{}")
    assert (answer.is_whole, answer.error) == (False, f"the connection broke (closed by the receiver){seen}")
    late = await answer_to(session, said)
    assert (late.is_whole, (late.error or "").startswith("no answer in time")) == (False, True)
    assert ("answered 200" in (late.error or "")) == (b"200" in said)


async def test_a_reset_is_called_a_reset(session: ClientSession) -> None:
    async with raw_receiver(resetting()) as shop:
        answer = await post(session, shop.url, headers={}, body=b"{}")
    assert answer.error == "the connection broke (reset by the receiver)"


# -- bodies and times


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_that_drips_gets_two_seconds_and_not_the_whole_timeout(status: int) -> None:
    head = b"HTTP/1.1 %d X\r\n\r\n" % status
    async with (
        raw_receiver(dripping(head, b"drip ", pause_s=0.05)) as shop,
        open_session(guarded_connector(LOOPBACK), timeout_s=30, user_agent="payments/tests") as patient,
    ):
        answer = await post(patient, shop.url, headers={}, body=b"{}")
    assert (answer.status, answer.is_whole) == (status, True)
    assert BODY_WITHIN_S * 1000 <= answer.duration_ms < 10_000
    assert answer.body.startswith(b"drip drip")


async def test_a_huge_body_is_read_up_to_its_cap_and_its_connection_is_closed(session: ClientSession) -> None:
    async with raw_receiver(saying(OK_LINE + b"content-length: 3000000\r\n\r\n" + b"x" * 3_000_000)) as shop:
        for _ in range(2):
            answer = await post(session, shop.url, headers={}, body=b"{}")
            assert (answer.status, answer.body) == (200, b"x" * RESPONSE_BYTES_MAX)
        assert [request.connection for request in shop.requests] == [0, 1]


async def test_a_timeout_is_not_rounded_up_to_a_whole_second() -> None:
    """aiohttp rounds timeouts over 5 s, unless it is told not to."""
    async with open_session(guarded_connector(LOOPBACK), timeout_s=15, user_agent="payments/tests") as patient:
        assert patient.timeout.total == 15
        assert patient.timeout.ceil_threshold > 120


async def test_of_several_retry_after_every_one_is_kept(session: ClientSession) -> None:
    answer = await answer_to(session, b"HTTP/1.1 429 X\r\nretry-after: 100\r\nRetry-After: 900\r\n" + EMPTY)
    assert answer.retry_after == ("100", "900")
