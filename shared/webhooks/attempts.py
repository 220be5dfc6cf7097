"""Attempts to send a delivery: what one attempt came to, and its record in the log and on the delivery."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy import RowMapping, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.columns import UtcDateTime
from shared.database.leases import WorkItem, lock
from shared.database.tables import columns_of, deliveries, delivery_attempts, webhook_endpoints
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.webhooks.deliveries import ClaimedDelivery, cancel_open, sanitize_error

# Bytes of an answer's body that are kept: what the tools of Standard Webhooks keep, and enough to see what went wrong.
RESPONSE_BYTES_MAX = 20_000
GONE = "the receiver answered 410 Gone"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has accepted the delivery."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The attempt failed; the delivery is due again `wait_s` seconds after the record."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The attempt failed, and there is no other: the retry schedule is used up, or no attempt can succeed."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants no more deliveries: the endpoint is disabled, or the payment's callback ends."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The order cannot be confirmed, now or later: it was cancelled while it was paid."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt failed, and the delivery was cancelled while it was sent: there is no other attempt."""


type AttemptOutcome = Delivered | TryAgain | Exhausted | Gone | Conflict
type RecordedOutcome = AttemptOutcome | Cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRequest:
    """A request over a kept connection that broke before any answer; the same attempt repeated it at once."""

    duration_ms: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to send and what it came to.

    `status_code` is the status that was seen, None if there was none. `error` is None if the delivery was accepted.
    `repeats` is the request that this attempt made before the one that all other fields are about.
    """

    delivery: ClaimedDelivery
    outcome: AttemptOutcome
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: bytes = field(repr=False)
    # Seconds for which the receiver wants nothing at all.
    hold_s: float = 0.0
    repeats: BrokenRequest | None = None


async def record_attempts(
    connection: AsyncConnection, now: datetime, attempts: Sequence[DeliveryAttempt]
) -> list[RecordedOutcome | None]:
    """Log each attempt and move its delivery on. Return, for each, what was recorded.

    None means that its claim held the delivery no more, and nothing was changed. A delivery that was cancelled while it
    was sent shows its attempt too, and is delivered if the receiver has accepted it. The other open deliveries of a
    receiver that is gone end as cancelled.
    """
    gone_endpoints = {item.delivery.endpoint_id for item in attempts if item.outcome == Gone()} - {None}
    urls = await _lock_endpoints(connection, gone_endpoints)
    held = await lock(
        connection,
        deliveries,
        [item.delivery.work_item for item in attempts],
        *columns_of(deliveries, "status", "attempts_total", "last_error"),
    )
    recorded: dict[WorkItem, tuple[DeliveryAttempt, RecordedOutcome]] = {}
    for item in attempts:
        row = held.get(item.delivery.work_item)
        if row is not None and row["status"] in (DeliveryStatus.SENDING, DeliveryStatus.CANCELLED):
            is_cancelled = row["status"] == DeliveryStatus.CANCELLED
            recorded[item.delivery.work_item] = item, _outcome(item, urls, is_cancelled=is_cancelled)
    if recorded:
        rows = [row for key, (item, _) in recorded.items() for row in _attempt_rows(item, held[key]["attempts_total"])]
        await connection.execute(insert(delivery_attempts), rows)
        moves = [_parameters(item, outcome, held[key], now) for key, (item, outcome) in recorded.items()]
        await connection.execute(_RECORD, moves)
        await _end_gone(connection, now, [item.delivery for item, outcome in recorded.values() if outcome == Gone()])
    found = [recorded.get(item.delivery.work_item) for item in attempts]
    return [each and each[1] for each in found]


_RECORD = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("record_id"))
    .values(
        {
            "status": bindparam("status"),
            # More than 0 where the status does not change: then the same record, made again, finds nothing.
            "lease_version": deliveries.c.lease_version + bindparam("lease_versions"),
            "retries": deliveries.c.retries + 1,
            "attempts_total": deliveries.c.attempts_total + bindparam("requests"),
            "due_at": bindparam("due_at"),
            "held_until": None,
            "last_error": bindparam("last_error"),
            "updated_at": bindparam("updated_at"),
            "delivered_at": func.coalesce(bindparam("delivered_at", type_=UtcDateTime), deliveries.c.delivered_at),
        }
    )
)


def _outcome(attempt: DeliveryAttempt, urls: Mapping[UUID, str], *, is_cancelled: bool) -> RecordedOutcome:
    """Return what an attempt comes to, after what has happened to its delivery and its endpoint meanwhile."""
    outcome, delivery = attempt.outcome, attempt.delivery
    if outcome == Gone() and delivery.endpoint_id is not None and urls.get(delivery.endpoint_id) != delivery.url:
        # The URL of before a change is gone, and that says nothing about the new one.
        outcome = TryAgain(0.0)
    return Cancelled() if is_cancelled and not isinstance(outcome, Delivered) else outcome


def _attempt_rows(attempt: DeliveryAttempt, logged: int) -> list[dict[str, Any]]:
    """Return a row for each request of an attempt; `logged` is the number of rows that the delivery already has."""
    began = attempt.delivery.claimed_at
    rows: list[dict[str, Any]] = []
    if attempt.repeats is not None:
        rows.append(
            {
                "number": logged + 1,
                "started_at": began,
                "duration_ms": attempt.repeats.duration_ms,
                "status_code": None,
                "error": sanitize_error(attempt.repeats.error),
                "response_body": "",
            }
        )
        began += timedelta(milliseconds=attempt.repeats.duration_ms)
    rows.append(
        {
            "number": logged + len(rows) + 1,
            "started_at": began,
            "duration_ms": attempt.duration_ms,
            "status_code": attempt.status_code,
            "error": sanitize_error(attempt.error),
            "response_body": cut_text(attempt.response_body.decode("utf-8", "replace")),
        }
    )
    return [{**row, "delivery_id": attempt.delivery.id, "url": attempt.delivery.url or None} for row in rows]


def _parameters(attempt: DeliveryAttempt, outcome: RecordedOutcome, row: RowMapping, now: datetime) -> dict[str, Any]:
    status, due_at = _next_state(outcome, now)
    return {
        "record_id": attempt.delivery.id,
        "status": status,
        "lease_versions": int(status == row["status"]),
        "requests": 1 if attempt.repeats is None else 2,
        "due_at": due_at,
        # Of a delivery that was cancelled, the reason for that stays.
        "last_error": row["last_error"] if outcome == Cancelled() else sanitize_error(attempt.error),
        "updated_at": now,
        "delivered_at": now if status == DeliveryStatus.DELIVERED else None,
    }


def _next_state(outcome: RecordedOutcome, now: datetime) -> tuple[DeliveryStatus, datetime | None]:
    match outcome:
        case Delivered():
            return DeliveryStatus.DELIVERED, None
        case TryAgain(wait_s):
            return DeliveryStatus.PENDING, now + timedelta(seconds=wait_s)
        case Exhausted() | Gone() | Conflict():
            return DeliveryStatus.EXHAUSTED, None
        case Cancelled():
            return DeliveryStatus.CANCELLED, None
        case _:
            assert_never(outcome)


def cut_text(text: str) -> str:
    """Return the beginning of an answer, at most RESPONSE_BYTES_MAX bytes of UTF-8.

    NUL, which PostgreSQL refuses, is replaced before that.
    """
    replaced = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return replaced[:RESPONSE_BYTES_MAX].decode("utf-8", "ignore")


async def _lock_endpoints(connection: AsyncConnection, endpoint_ids: Iterable[UUID | None]) -> dict[UUID, str]:
    """Lock endpoints before deliveries, as every transaction that disables one does: then none of them deadlock.

    Return the URL of each.
    """
    wanted = sorted(endpoint_id for endpoint_id in endpoint_ids if endpoint_id)
    if not wanted:
        return {}
    found = await connection.execute(
        select(webhook_endpoints.c.id, webhook_endpoints.c.url)
        .where(webhook_endpoints.c.id.in_(wanted))
        .order_by(webhook_endpoints.c.id)
        .with_for_update()
    )
    return {row.id: row.url for row in found}


async def _end_gone(connection: AsyncConnection, now: datetime, gone: Sequence[ClaimedDelivery]) -> None:
    """Disable the endpoints, and end the callbacks, whose receivers want no more deliveries."""
    endpoint_ids = {delivery.endpoint_id for delivery in gone if delivery.endpoint_id}
    payment_ids = {delivery.payment_id for delivery in gone if delivery.kind == DeliveryKind.CALLBACK}
    if endpoint_ids:
        await connection.execute(
            update(webhook_endpoints)
            .where(webhook_endpoints.c.id.in_(endpoint_ids), webhook_endpoints.c.enabled)
            .values(enabled=False, disabled_reason=GONE, updated_at=now)
        )
        await cancel_open(connection, now, GONE, deliveries.c.endpoint_id.in_(endpoint_ids))
    if payment_ids:
        is_callback = deliveries.c.kind == DeliveryKind.CALLBACK
        await cancel_open(connection, now, GONE, deliveries.c.payment_id.in_(payment_ids) & is_callback)
