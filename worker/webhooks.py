"""One webhook: signed as Standard Webhooks asks, posted once, and what its answer means for the next try.

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

from shared.deliveries import RESPONSE_BYTES_MAX, ClaimedDelivery, Delivered, Exhausted, Gone, Outcome, TryAgain
from shared.vault import WEBHOOK_SECRET_PREFIX
from worker.guard import AddressRefused

JITTER_MAX = 0.2  # of a wait, both ways: what failed together does not come back together
TOO_MANY_REQUESTS_FLOOR_S = 60  # who says "too many" without saying until when gets a minute
RETRY_AFTER_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
AT_ONCE_AGAIN_S = 1.0  # a connection that fails this fast was idle too long or met a restart: once more, same attempt
RETRY_AFTER_DIGITS_MAX = 9  # thirty years; longer numbers are nonsense


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from one attempt."""

    status: int | None = None  # None = no HTTP answer
    error: str | None = None  # None = the receiver said 2xx
    retry_after: str | None = None
    body: bytes = field(default=b"", repr=False)
    duration_ms: int = 0
    is_broken: bool = False  # the connection failed before anything of an answer was read


def sign(secret: str, webhook_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks for exactly these bytes; `timestamp` in unix seconds of this attempt."""
    key = base64.b64decode(secret.removeprefix(WEBHOOK_SECRET_PREFIX))
    signature = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": str(webhook_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def headers_of(delivery: ClaimedDelivery, secret: str) -> dict[str, str]:
    """The headers of this attempt to deliver."""
    headers = sign(secret, delivery.id, int(delivery.claimed_at.timestamp()), delivery.body)
    if delivery.correlation_id:
        headers["x-correlation-id"] = delivery.correlation_id
    return headers


def decide(
    status: int | None, *, retry_after_s: float | None, tries: int, schedule: Sequence[float], jitter: float
) -> Outcome:
    """What an answer (None = there was none) means after `tries` earlier tries of this schedule; waits in s.

    `jitter`, between -0.2 and 0.2, lengthens the scheduled wait by that part. Floors and `Retry-After` lengthen it
    further, at most to the schedule's longest step. The schedule lists the waits after each failure: n waits are
    n + 1 tries.
    """
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivered()
    if status == HTTPStatus.GONE:
        return Gone()
    if tries >= len(schedule):
        return Exhausted()
    floor_s = TOO_MANY_REQUESTS_FLOOR_S if status == HTTPStatus.TOO_MANY_REQUESTS else 0.0
    if status in RETRY_AFTER_STATUSES and retry_after_s is not None:
        floor_s = max(floor_s, retry_after_s)
    return TryAgain(max(schedule[tries] * (1 + jitter), min(floor_s, max(schedule))))


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """`Retry-After` in seconds from `now`, given as seconds or as an HTTP date (RFC 9110, 10.2.3); None if neither."""
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
    """The HTTP client of all deliveries; `timeout_s` is for all of an exchange, from the name to the last byte read."""
    return ClientSession(
        connector=connector,
        timeout=ClientTimeout(total=timeout_s),
        headers={"user-agent": user_agent, "content-type": "application/json"},
        skip_auto_headers=("accept-encoding",),  # nobody unpacks what comes back
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        trust_env=False,  # a proxy would connect where the guard cannot see
    )


async def post(session: ClientSession, url: str, *, headers: Mapping[str, str], body: bytes) -> Answer:
    """POST exactly `body`; a connection that failed within a second is tried once more at once.

    Never raises for what the receiver or the network does.
    """
    started = monotonic()
    answer = await _exchange(session, url, headers, body)
    if answer.is_broken and monotonic() - started < AT_ONCE_AGAIN_S:
        answer = await _exchange(session, url, headers, body)
    return replace(answer, duration_ms=round((monotonic() - started) * 1000))


async def _exchange(session: ClientSession, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return await _read(response)
    except TimeoutError:
        return Answer(error="no answer in time")
    except (ClientConnectorDNSError, ClientSSLError) as error:
        return Answer(error=_why_not_connected(error))
    except ClientConnectorError as error:
        return Answer(error=_why_not_connected(error), is_broken=not isinstance(error.os_error, AddressRefused))
    except (ClientConnectionError, OSError) as error:
        return Answer(error=f"the connection broke ({type(error).__name__})", is_broken=True)
    except (ClientError, ValueError) as error:
        return Answer(error=f"no valid HTTP exchange ({type(error).__name__})")


async def _read(response: ClientResponse) -> Answer:
    """The status decides; the body is for the log and may break off."""
    body = bytearray()
    try:
        while len(body) < RESPONSE_BYTES_MAX and (part := await response.content.read(RESPONSE_BYTES_MAX - len(body))):
            body += part
    except (ClientError, OSError):  # TimeoutError is an OSError: this also ends a body that drips
        response.close()
    if not response.content.at_eof():
        response.close()  # a connection with an unread rest is of no use to the next delivery
    return Answer(
        status=response.status,
        error=_why_not_delivered(response.status),
        retry_after=response.headers.get("retry-after"),
        body=bytes(body),
    )


def _why_not_delivered(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"


def _why_not_connected(error: ClientConnectorError) -> str:
    if isinstance(error.os_error, AddressRefused):
        return str(error.os_error)
    if isinstance(error, ClientConnectorDNSError):
        return "the host's name does not resolve"
    if isinstance(error, ClientSSLError):
        return f"TLS failed: {error.os_error}"
    return f"could not connect: {error.os_error.strerror or type(error.os_error).__name__}"
