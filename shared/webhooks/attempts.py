"""Attempts to send a delivery: what one attempt came to, and its record in the log and on the delivery."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import lock
from shared.database.tables import UtcDateTime, columns_of, deliveries, delivery_attempts, webhook_endpoints
from shared.lifecycle import DeliveryKind, DeliveryStatus
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
    """The attempt failed and the retry schedule is used up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants no more deliveries: the endpoint is disabled, or the payment's callback ends."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The delivery can never succeed: the order was cancelled while it was paid."""


type AttemptOutcome = Delivered | TryAgain | Exhausted | Gone | Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to send and what it came to.

    `status_code` is None if there was no answer, `error` is None if the delivery was accepted.
    """

    delivery: ClaimedDelivery
    outcome: AttemptOutcome
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: bytes = field(repr=False)
    # Seconds for which the receiver wants nothing at all.
    hold_s: float = 0.0


async def record_attempts(
    connection: AsyncConnection, now: datetime, attempts: Sequence[DeliveryAttempt]
) -> list[bool]:
    """Log each attempt and move its delivery on. Return, for each, whether its claim still held the delivery.

    False means that nothing was changed. The other open deliveries of a receiver that is gone end as cancelled.
    """
    gone_endpoints = {item.delivery.endpoint_id for item in attempts if item.outcome == Gone()} - {None}
    await _lock_endpoints(connection, gone_endpoints)
    held = await lock(
        connection,
        deliveries,
        [item.delivery.work_item for item in attempts],
        *columns_of(deliveries, "status", "attempts_total"),
    )
    valid = {
        item.delivery.work_item: item
        for item in attempts
        if item.delivery.work_item in held and held[item.delivery.work_item]["status"] == DeliveryStatus.SENDING
    }
    if valid:
        logged = [_attempt_row(item, held[work_item]["attempts_total"] + 1) for work_item, item in valid.items()]
        await connection.execute(insert(delivery_attempts), logged)
        await connection.execute(_RECORD, [_parameters(item, now) for item in valid.values()])
        await _end_gone(connection, now, [item.delivery for item in valid.values() if item.outcome == Gone()])
    return [item.delivery.work_item in valid for item in attempts]


_RECORD = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("record_id"))
    .values(
        {
            "status": bindparam("status"),
            "retries": deliveries.c.retries + 1,
            "attempts_total": deliveries.c.attempts_total + 1,
            "due_at": bindparam("due_at"),
            "last_error": bindparam("last_error"),
            "updated_at": bindparam("updated_at"),
            "delivered_at": func.coalesce(bindparam("delivered_at", type_=UtcDateTime), deliveries.c.delivered_at),
        }
    )
)


def _attempt_row(attempt: DeliveryAttempt, number: int) -> dict[str, Any]:
    return {
        "delivery_id": attempt.delivery.id,
        "number": number,
        "started_at": attempt.delivery.claimed_at,
        "duration_ms": attempt.duration_ms,
        "status_code": attempt.status_code,
        "error": sanitize_error(attempt.error),
        "response_body": _readable(attempt.response_body),
    }


def _parameters(attempt: DeliveryAttempt, now: datetime) -> dict[str, Any]:
    status, due_at = _next_state(attempt.outcome, now)
    return {
        "record_id": attempt.delivery.id,
        "status": status,
        "due_at": due_at,
        "last_error": sanitize_error(attempt.error),
        "updated_at": now,
        "delivered_at": now if status == DeliveryStatus.DELIVERED else None,
    }


def _next_state(outcome: AttemptOutcome, now: datetime) -> tuple[DeliveryStatus, datetime | None]:
    match outcome:
        case Delivered():
            return DeliveryStatus.DELIVERED, None
        case TryAgain(wait_s):
            return DeliveryStatus.PENDING, now + timedelta(seconds=wait_s)
        case Exhausted() | Gone() | Conflict():
            return DeliveryStatus.EXHAUSTED, None
        case _:
            assert_never(outcome)


def _readable(body: bytes) -> str:
    """Return the beginning of an answer as text. What is no text, and NUL, which PostgreSQL refuses, is replaced."""
    return body[:RESPONSE_BYTES_MAX].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


async def _lock_endpoints(connection: AsyncConnection, endpoint_ids: Iterable[UUID | None]) -> None:
    """Lock endpoints before deliveries, as every transaction that disables one does: then none of them deadlock."""
    wanted = sorted(endpoint_id for endpoint_id in endpoint_ids if endpoint_id)
    if wanted:
        await connection.execute(
            select(webhook_endpoints.c.id)
            .where(webhook_endpoints.c.id.in_(wanted))
            .order_by(webhook_endpoints.c.id)
            .with_for_update()
        )


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
