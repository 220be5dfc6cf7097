"""One webhook: signs it as Standard Webhooks asks, posts it, and decides what the answer means for the next attempt.

It follows no redirect, keeps no cookie and reads no more of an answer than 20 KB. It knows no database.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic
from uuid import UUID

from aiohttp import (
    BaseConnector,
    ClientConnectionError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
)

from shared.keyring import WEBHOOK_SECRET_PREFIX
from shared.webhooks.attempts import RESPONSE_BYTES_MAX, AttemptOutcome, Delivered, Exhausted, Gone, TryAgain
from shared.webhooks.deliveries import ClaimedDelivery
from worker.deliveries.ssrf_guard import AddressRefused

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
# Seconds within which a failed connection is opened once more by the same attempt: a connection that fails so fast was
# idle for too long, or the receiver was restarting.
AT_ONCE_AGAIN_S = 1.0
# Nine digits of seconds are thirty years: a longer number is no valid wait.
RETRY_AFTER_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """The receiver's answer to one attempt, or why there was none.

    `status` is None if there was no HTTP answer. `error` is None if the receiver answered 2xx. `retry_after` is the
    header as it was sent.
    """

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    body: bytes = field(default=b"", repr=False)
    duration_ms: int = 0
    # The connection failed before any part of an answer was read.
    is_broken: bool = False


def sign(secret: str, webhook_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of Standard Webhooks for exactly the bytes of `body`.

    `timestamp` is the moment of this attempt in Unix seconds; it is part of what is signed.
    """
    key = base64.b64decode(secret.removeprefix(WEBHOOK_SECRET_PREFIX))
    signature = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": str(webhook_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def headers_of(delivery: ClaimedDelivery, secret: str) -> dict[str, str]:
    """Return the headers of this attempt: id, timestamp, signature and, if there is one, the correlation id."""
    headers = sign(secret, delivery.id, int(delivery.claimed_at.timestamp()), delivery.body)
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


def open_session(connector: BaseConnector, *, timeout_s: float, user_agent: str) -> ClientSession:
    """Return the HTTP client of all deliveries.

    `timeout_s` bounds a whole exchange, from resolving the name to reading the last byte.
    """
    return ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=timeout_s),
        headers={"user-agent": user_agent, "content-type": "application/json"},
        # Answers are not decompressed: they only go into the log.
        skip_auto_headers=("accept-encoding",),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        # A proxy would open the connection itself, past the SSRF guard.
        trust_env=False,
    )


async def post(session: ClientSession, url: str, *, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
    """POST exactly `body`, and return the answer. A connection that failed within a second is tried once more at once.

    Never raises for what the receiver or the network does.
    """
    started = monotonic()
    answer = await _exchange(session, url, headers, body)
    if answer.is_broken and monotonic() - started < AT_ONCE_AGAIN_S:
        answer = await _exchange(session, url, headers, body)
    return replace(answer, duration_ms=round((monotonic() - started) * 1000))


async def _exchange(session: ClientSession, url: str, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return await _read(response)
    except TimeoutError:
        return WebhookAnswer(error="no answer in time")
    except (ClientConnectorDNSError, ClientSSLError) as error:
        return WebhookAnswer(error=_connection_error(error))
    except ClientConnectorError as error:
        return WebhookAnswer(error=_connection_error(error), is_broken=not isinstance(error.os_error, AddressRefused))
    except (ClientConnectionError, OSError) as error:
        return WebhookAnswer(error=f"the connection broke ({type(error).__name__})", is_broken=True)
    except (ClientError, ValueError) as error:
        return WebhookAnswer(error=f"no valid HTTP exchange ({type(error).__name__})")


async def _read(response: ClientResponse) -> WebhookAnswer:
    """Read an answer. Its status decides; the body is only for the log, and may be incomplete."""
    body = bytearray()
    try:
        while len(body) < RESPONSE_BYTES_MAX and (part := await response.content.read(RESPONSE_BYTES_MAX - len(body))):
            body += part
    except (ClientError, OSError):
        # TimeoutError is an OSError: a body that arrives too slowly ends here, too.
        response.close()
    if not response.content.at_eof():
        # A connection with an unread body cannot be used for the next delivery.
        response.close()
    return WebhookAnswer(
        status=response.status,
        error=_status_error(response.status),
        retry_after=response.headers.get("retry-after"),
        body=bytes(body),
    )


def _status_error(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"


def _connection_error(error: ClientConnectorError) -> str:
    if isinstance(error.os_error, AddressRefused):
        return str(error.os_error)
    if isinstance(error, ClientConnectorDNSError):
        return "the host's name does not resolve"
    if isinstance(error, ClientSSLError):
        return f"TLS failed: {error.os_error}"
    return f"could not connect: {error.os_error.strerror or type(error.os_error).__name__}"
