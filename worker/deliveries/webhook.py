"""One webhook: signs it as Standard Webhooks asks, posts it, and decides what the answer means for the next attempt.

It follows no redirect, keeps no cookie and reads no more of an answer than 20 KB. It knows no database.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from time import monotonic

from aiohttp import (
    BaseConnector,
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
)
from yarl import URL

from shared.upstream.connections import HEAD_BYTES_MAX, HEAD_LINES_MAX, Exchange, NotHttp
from shared.webhooks.attempts import (
    RESPONSE_BYTES_MAX,
    AttemptOutcome,
    BrokenRequest,
    Delivered,
    Exhausted,
    Gone,
    TryAgain,
)
from shared.webhooks.deliveries import ClaimedDelivery
from shared.webhooks.signatures import sign
from shared.webhooks.url_policy import split_target
from worker.deliveries.failures import (
    describe_broken,
    describe_connection_error,
    describe_invalid,
    describe_timeout,
)

# The jitter of a wait, up and down, as a part of it: deliveries that failed together must not be sent again together.
JITTER_MAX = 0.2
# Seconds to wait after a 429 at least, also if its `Retry-After` is shorter.
TOO_MANY_REQUESTS_FLOOR_S = 60
# Statuses whose `Retry-After` is followed.
RETRY_AFTER_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
# Seconds within which a kept connection must break for its request to be repeated by the same attempt: the connection
# was idle for too long, or the receiver has restarted.
AT_ONCE_AGAIN_S = 1.0
# Seconds that the body of an answer gets after its header. The status has decided by then, and the body is for the log.
BODY_WITHIN_S = 2.0
# Parsed URLs that are kept in memory.
URLS_CACHED = 1_000
# Nine digits of seconds are thirty years: a longer number is no valid wait.
RETRY_AFTER_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """The receiver's answer to one attempt, or why there was none.

    `status` is the status that was seen, None if there was none. `is_whole` says that the whole header arrived: only
    then the status counts. `error` is None if the receiver answered 2xx. `retry_after` has the headers of that name as
    they were sent. `repeats` is the request that this attempt made before, over a kept connection that broke.
    """

    status: int | None = None
    is_whole: bool = False
    error: str | None = None
    retry_after: tuple[str, ...] = ()
    body: bytes = field(default=b"", repr=False)
    duration_ms: int = 0
    repeats: BrokenRequest | None = None
    # A kept connection broke, or brought something else, before any part of an answer was read.
    is_stale: bool = False


def headers_of(delivery: ClaimedDelivery, secret: str) -> dict[str, str]:
    """Return the headers of this attempt: id, timestamp, signature and, if there is one, the correlation id."""
    headers = sign(secret, delivery.id, int(delivery.sent_at.timestamp()), delivery.body)
    if delivery.correlation_id:
        headers["x-correlation-id"] = delivery.correlation_id
    return headers


def decide(
    status: int | None, *, retry_after_s: float | None, retries: int, schedule_s: Sequence[float], jitter: float
) -> AttemptOutcome:
    """Decide what an answer means after `retries` earlier attempts of this schedule.

    `status` is None if there was no answer. `schedule_s` lists the seconds to wait after each failure: n waits allow
    n + 1 attempts. `jitter`, between -0.2 and 0.2, lengthens the scheduled wait by that part of it. A 429 and
    `Retry-After` (RFC 9110, 10.2.3) lengthen the wait further, at most to the longest of the schedule.
    """
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivered()
    if status == HTTPStatus.GONE:
        return Gone()
    if retries >= len(schedule_s):
        return Exhausted()
    floor_s = hold_for(status, retry_after_s=retry_after_s, schedule_s=schedule_s)
    return TryAgain(max(schedule_s[retries] * (1 + jitter), floor_s))


def hold_for(status: int | None, *, retry_after_s: float | None, schedule_s: Sequence[float]) -> float:
    """Return the seconds for which the receiver wants no delivery at all, at most the longest of the schedule."""
    floor_s = TOO_MANY_REQUESTS_FLOOR_S if status == HTTPStatus.TOO_MANY_REQUESTS else 0.0
    if status in RETRY_AFTER_STATUSES and retry_after_s is not None:
        floor_s = max(floor_s, retry_after_s)
    return min(floor_s, max(schedule_s, default=0.0))


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return `Retry-After` in seconds from `now`; None if it is neither seconds nor an HTTP date (RFC 9110, 10.2.3)."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) <= RETRY_AFTER_DIGITS_MAX else None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def longest_retry_after(texts: Sequence[str], now: datetime) -> float | None:
    """Return the longest of the waits that headers of an answer ask for; see `parse_retry_after`."""
    return max((wait for text in texts if (wait := parse_retry_after(text, now)) is not None), default=None)


def open_session(connector: BaseConnector, *, timeout_s: float, user_agent: str) -> ClientSession:
    """Return the HTTP client of all deliveries.

    `timeout_s` bounds a whole attempt, from resolving the name to reading the last byte.
    """
    return ClientSession(
        connector=connector,
        timeout=_timeout(timeout_s),
        headers={"user-agent": user_agent, "content-type": "application/json"},
        # Answers are not decompressed: they only go into the log.
        skip_auto_headers=("accept-encoding",),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        # A proxy would open the connection itself, past the SSRF guard.
        trust_env=False,
        # The connection counts the header's bytes and lines, and the parser must not be stricter.
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
        max_headers=HEAD_LINES_MAX,
    )


async def post(session: ClientSession, url: str, *, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
    """POST exactly `body` to exactly `url`, and return the answer.

    If a connection that an earlier delivery has used breaks within a second and before any answer, the request is
    repeated once, over a new one.
    Never raises for what the receiver or the network does.
    """
    started = monotonic()
    answer = await _exchange(session, url, headers, body, Exchange(), session.timeout)
    passed_s = monotonic() - started
    left_s = (session.timeout.total or 0) - passed_s
    if not answer.is_stale or passed_s >= AT_ONCE_AGAIN_S or left_s <= 0:
        return replace(answer, duration_ms=round(passed_s * 1000))
    why = f"{answer.error}; the connection was an earlier delivery's, and the request was repeated over a new one"
    broken = BrokenRequest(duration_ms=round(passed_s * 1000), error=why)
    answer = await _exchange(session, url, headers, body, Exchange(is_new=True), _timeout(left_s))
    return replace(answer, duration_ms=round((monotonic() - started - passed_s) * 1000), repeats=broken)


async def _exchange(
    session: ClientSession,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    exchange: Exchange,
    timeout: ClientTimeout,
) -> WebhookAnswer:
    try:
        with exchange.running():
            response = await session.post(
                _exact(url), data=body, headers=headers, allow_redirects=False, timeout=timeout
            )
        async with response:
            return await _read(response)
    except TimeoutError:
        return WebhookAnswer(status=exchange.status, error=describe_timeout(exchange))
    except ClientConnectorError as error:
        return WebhookAnswer(error=describe_connection_error(error))
    except (ClientConnectionError, OSError) as error:
        return WebhookAnswer(
            status=exchange.status,
            error=describe_broken(error, exchange),
            is_stale=exchange.is_reused and not exchange.has_answer,
        )
    except (ClientError, ValueError) as error:
        return WebhookAnswer(
            status=exchange.status,
            error=describe_invalid(error, exchange),
            # Bytes of an earlier answer that came late.
            is_stale=exchange.is_reused and isinstance(error, NotHttp),
        )


def _timeout(total_s: float) -> ClientTimeout:
    # aiohttp would round a timeout above 5 s up to whole seconds of its clock.
    return ClientTimeout(total=total_s, ceil_threshold=math.inf)


# Parsing a URL takes a tenth of the time of a request, and most receivers get many.
@lru_cache(URLS_CACHED)
def _exact(url: str) -> URL:
    """Return a URL whose request target is sent byte for byte.

    A `yarl.URL` of the text would decode and encode escapes, resolve dots and drop an empty query. So all of the
    target goes in as a path that is encoded already.
    """
    scheme, authority, target = split_target(url)
    return URL.build(scheme=scheme, authority=authority, path=target, encoded=True)


async def _read(response: ClientResponse) -> WebhookAnswer:
    """Read an answer. Its status decides; the body is only for the log, and may be incomplete."""
    body = b"" if response.content.at_eof() else await _read_body(response)
    return WebhookAnswer(
        status=response.status,
        is_whole=True,
        error=_status_error(response.status),
        retry_after=tuple(response.headers.getall("retry-after", ())),
        body=bytes(body),
    )


async def _read_body(response: ClientResponse) -> bytes:
    """Return the beginning of a body: what has arrived of it in time. Its connection is kept if that is all of it."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while len(body) < RESPONSE_BYTES_MAX:
                part = await response.content.read(RESPONSE_BYTES_MAX - len(body))
                if not part:
                    break
                body += part
    except (ClientError, OSError):
        # TimeoutError is an OSError: a body that arrives too slowly ends here, too.
        response.close()
    if not response.content.at_eof():
        # A connection with an unread body cannot be used for the next delivery.
        response.close()
    return bytes(body)


def _status_error(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"
