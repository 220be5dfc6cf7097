"""The life of a delivery from its claim to its end.

                  claimed            2xx      ┌───────────┐
    ┌─────────┐ ───────────▶ ┌─────────┐ ────▶│ delivered │
    │ pending │              │ sending │      └───────────┘
    └─────────┘ ◀─────────── └─────────┘ ────▶┌───────────┐   410, an order that was cancelled,
        ▲      failed; due     │  ▲  │        │ exhausted │   or the schedule is used up
        │      later           │  └──┘        └───────────┘
        │                      ▼  lease expired
        │                ┌───────────┐
        └── resent ──────│ cancelled │  the endpoint was disabled or deleted (from pending, too)
          (from any end) └───────────┘

Apart from the INSERT in `events`, nobody else writes `deliveries.status`. Nothing here sends or decides: what an answer
means is the worker's business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Update, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.addresses import origin
from shared.any_of import any_of
from shared.errors import DeliveryInProgress, EndpointDisabled
from shared.leases import CLOCKS_APART_S, REPUBLISHED_AFTER_S, Ref, claim, lock
from shared.lifecycle import OPEN_DELIVERY, DeliveryKind, DeliveryStatus
from shared.models import UtcDateTime, deliveries, delivery_attempts, events, payments, webhook_endpoints

RESPONSE_BYTES_MAX = 20_000  # of an answer's body: what Standard Webhooks' tools keep, enough to see what went wrong
ERROR_CHARS_MAX = 255  # the columns' width
GONE = "the receiver answered 410 Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """All that sending one delivery takes; it is ours until `lease_until`."""

    id: UUID  # the receiver's dedupe key: the same over all attempts
    attempt: int
    tries: int  # counted against the schedule so far, without this one
    attempts_made: int  # logged so far, without this one
    kind: DeliveryKind
    payment_id: UUID
    event_id: UUID
    endpoint_id: UUID | None
    correlation_id: str | None
    url: str  # empty for the order service, whose address is a setting
    order_id: str
    body: bytes = field(repr=False)
    encrypted_secret: str | None = field(repr=False)  # of the endpoint; None = a callback, signed for its owner
    owner: str  # who created the payment
    claimed_at: datetime
    lease_until: datetime

    @property
    def ref(self) -> Ref:
        """The fence of this claim."""
        return Ref(self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It failed and is due again `wait_s` seconds after the record."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """It failed and the schedule is used up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants nothing more: the endpoint is disabled, or the payment's callback is over."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """It can never be delivered: the order was cancelled while it was paid."""


type Outcome = Delivered | TryAgain | Exhausted | Gone | Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One POST and what came of it."""

    delivery: ClaimedDelivery
    outcome: Outcome
    duration_ms: int
    status_code: int | None  # None = no answer
    error: str | None  # None = delivered
    response_body: bytes = field(repr=False)


async def hosts_of(connection: AsyncConnection, refs: Sequence[Ref]) -> list[tuple[Ref, str]]:
    """Those of `refs` that are still open under their attempt, each with `scheme://host:port` of its receiver.

    The order service, whose address is a setting, goes by the name of its kind. Only reads: whoever claims looks again.
    """
    if not refs:
        return []
    found = await connection.execute(
        select(deliveries.c.id, deliveries.c.attempt, deliveries.c.kind, RECEIVER_URL)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
        .where(any_of(deliveries.c.id, [ref.id for ref in refs]), deliveries.c.status.in_(OPEN_DELIVERY))
    )
    hosts = {Ref(row.id, row.attempt): origin(row.url or "") or row.kind for row in found}
    return [(ref, hosts[ref]) for ref in dict.fromkeys(refs) if ref in hosts]


async def claim_deliveries(
    connection: AsyncConnection, now: datetime, refs: Sequence[Ref], *, lease_s: float
) -> list[ClaimedDelivery | None]:
    """Claim each ticket's delivery for `lease_s` seconds; None, in the order of `refs`, where there is nothing to send.

    That is where somebody else was first, the delivery has ended or is not due for long, or its endpoint was disabled
    or deleted: then it ends here as cancelled.
    """
    lease_until = now + timedelta(seconds=lease_s)
    statement = (
        update(deliveries)
        # A ticket is written when its row is due, which the relay then puts off by 30 s: a row due later than that
        # waits for its next try, and the ticket is older than the last one. By its own clock the relay may have put it
        # off a little further: refused for that, it would wait for 30 s more, and then again.
        .where(deliveries.c.due_at <= now + timedelta(seconds=REPUBLISHED_AFTER_S + CLOCKS_APART_S))
        .where(deliveries.c.status.in_(OPEN_DELIVERY))
        .values(status=DeliveryStatus.SENDING, due_at=lease_until, updated_at=now)
    )
    ids = [row["id"] for row in await claim(connection, deliveries, refs, statement)]
    claimed: dict[Ref, ClaimedDelivery] = {}
    unwanted: dict[str, list[UUID]] = {}
    for row in await _with_receivers(connection, ids):
        if reason := _why_unwanted(row):
            unwanted.setdefault(reason, []).append(row["id"])
        else:
            claimed[Ref(row["id"], row["attempt"] - 1)] = _claimed(row, now, lease_until)
    for reason, ended in unwanted.items():
        await connection.execute(_ending(now, reason).where(any_of(deliveries.c.id, ended)))
    return [claimed.pop(ref, None) for ref in refs]


async def record_attempts(
    connection: AsyncConnection, now: datetime, attempts: Sequence[DeliveryAttempt]
) -> list[bool]:
    """Log each attempt and move its delivery on; False where the claim no longer holds it: nothing was changed.

    A receiver that is gone takes its other open deliveries with it: they end as cancelled.
    """
    gone_endpoints = {item.delivery.endpoint_id for item in attempts if item.outcome == Gone()} - {None}
    await _lock_endpoints(connection, gone_endpoints)
    held = await lock(
        connection,
        deliveries,
        [item.delivery.ref for item in attempts],
        deliveries.c.status,
        deliveries.c.attempts_made,
    )
    standing = {
        item.delivery.ref: item
        for item in attempts
        if item.delivery.ref in held and held[item.delivery.ref]["status"] == DeliveryStatus.SENDING
    }
    if standing:
        logged = [_attempt_row(item, held[ref]["attempts_made"] + 1) for ref, item in standing.items()]
        await connection.execute(insert(delivery_attempts), logged)
        await connection.execute(_RECORD, [_columns(item, now) for item in standing.values()])
        await _stop_telling(connection, now, [item.delivery for item in standing.values() if item.outcome == Gone()])
    return [item.delivery.ref in standing for item in attempts]


async def release(connection: AsyncConnection, now: datetime, refs: Sequence[Ref]) -> int:
    """Give claims back that came to nothing: due now, uncounted, not logged. Returns how many still were ours."""
    held = await lock(connection, deliveries, refs, deliveries.c.status)
    ids = [ref.id for ref, row in held.items() if row["status"] == DeliveryStatus.SENDING]
    await connection.execute(
        update(deliveries)
        .where(any_of(deliveries.c.id, ids))
        .values(status=DeliveryStatus.PENDING, due_at=now, updated_at=now)
    )
    return len(ids)


async def resend(connection: AsyncConnection, now: datetime, delivery_id: UUID) -> Ref | None:
    """Make the delivery due now with a fresh schedule, however it ended; its ticket, to be published after the commit.

    `delivered_at` stays until it is delivered again. None if there is no such delivery or its endpoint was deleted.
    Raises DeliveryInProgress while it is being sent, EndpointDisabled.
    """
    found = await connection.execute(select(deliveries).where(deliveries.c.id == delivery_id).with_for_update())
    row = found.mappings().one_or_none()
    if row is None or not await _is_wanted(connection, row["endpoint_id"]):
        return None
    if row["status"] == DeliveryStatus.SENDING and row["due_at"] > now:
        raise DeliveryInProgress("this delivery is being sent")
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(status=DeliveryStatus.PENDING, tries=0, due_at=now, updated_at=now)
    )
    return Ref(delivery_id, row["attempt"])


async def cancel_open(connection: AsyncConnection, now: datetime, endpoint_id: UUID, reason: str) -> int:
    """End the endpoint's open deliveries as cancelled, `reason` being their last error; returns how many.

    Call it after the UPDATE that disables or deletes the endpoint, in the same transaction: both lock the endpoint
    before its deliveries. One that is being sent right now may arrive all the same.
    """
    return await _cancel(connection, now, reason, deliveries.c.endpoint_id == endpoint_id)


RECEIVER_URL = func.coalesce(deliveries.c.url, webhook_endpoints.c.url).label("url")

_WITH_RECEIVERS = (
    select(
        *deliveries.c["id", "attempt", "tries", "attempts_made", "kind", "payment_id", "event_id", "endpoint_id"],
        deliveries.c.correlation_id,
        RECEIVER_URL,
        events.c.body,
        payments.c.created_by.label("owner"),
        payments.c.order_id,
        webhook_endpoints.c.secret.label("encrypted_secret"),
        webhook_endpoints.c.enabled,
        webhook_endpoints.c.deleted_at,
    )
    .join(events, events.c.id == deliveries.c.event_id)
    .join(payments, payments.c.id == deliveries.c.payment_id)
    .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    .where(any_of(deliveries.c.id, "ids"))
)

_RECORD = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("record_id"))
    .values(
        status=bindparam("status"),
        tries=deliveries.c.tries + 1,
        attempts_made=deliveries.c.attempts_made + 1,
        due_at=bindparam("due_at"),
        last_error=bindparam("last_error"),
        updated_at=bindparam("updated_at"),
        delivered_at=func.coalesce(bindparam("delivered_at", type_=UtcDateTime), deliveries.c.delivered_at),
    )
)


async def _with_receivers(connection: AsyncConnection, ids: Sequence[UUID]) -> Sequence[RowMapping]:
    """The deliveries with what is sent, to where and in whose name."""
    return (await connection.execute(_WITH_RECEIVERS, {"ids": ids})).mappings().all() if ids else []


def _why_unwanted(row: RowMapping) -> str | None:
    if row["kind"] != DeliveryKind.ENDPOINT:
        return None
    if row["deleted_at"] is not None:
        return "the endpoint was deleted"
    return None if row["enabled"] else "the endpoint is disabled"


def _claimed(row: RowMapping, now: datetime, lease_until: datetime) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=row["id"],
        attempt=row["attempt"],
        tries=row["tries"],
        attempts_made=row["attempts_made"],
        kind=DeliveryKind(row["kind"]),
        payment_id=row["payment_id"],
        event_id=row["event_id"],
        endpoint_id=row["endpoint_id"],
        correlation_id=row["correlation_id"],
        url=row["url"] or "",
        order_id=row["order_id"],
        body=row["body"].encode(),
        encrypted_secret=row["encrypted_secret"],
        owner=row["owner"],
        claimed_at=now,
        lease_until=lease_until,
    )


def _attempt_row(attempt: DeliveryAttempt, number: int) -> dict[str, Any]:
    return {
        "delivery_id": attempt.delivery.id,
        "number": number,
        "started_at": attempt.delivery.claimed_at,
        "duration_ms": attempt.duration_ms,
        "status_code": attempt.status_code,
        "error": _storable(attempt.error),
        "response_body": _readable(attempt.response_body),
    }


def _columns(attempt: DeliveryAttempt, now: datetime) -> dict[str, Any]:
    """The parameters of `_RECORD` for one attempt."""
    status, due_at = _standing_after(attempt.outcome, now)
    return {
        "record_id": attempt.delivery.id,
        "status": status,
        "due_at": due_at,
        "last_error": _storable(attempt.error),
        "updated_at": now,
        "delivered_at": now if status == DeliveryStatus.DELIVERED else None,
    }


def _standing_after(outcome: Outcome, now: datetime) -> tuple[DeliveryStatus, datetime | None]:
    match outcome:
        case Delivered():
            return DeliveryStatus.DELIVERED, None
        case TryAgain(wait_s):
            return DeliveryStatus.PENDING, now + timedelta(seconds=wait_s)
        case Exhausted() | Gone() | Conflict():
            return DeliveryStatus.EXHAUSTED, None
        case _:
            assert_never(outcome)


def _storable(error: str | None) -> str | None:
    """`error` as every database takes it: texts of exceptions may hold anything."""
    if error is None:
        return None
    return error.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")[:ERROR_CHARS_MAX]


def _readable(body: bytes) -> str:
    """The beginning of an answer as text; what is no text, and NUL, which PostgreSQL refuses, is replaced."""
    return body[:RESPONSE_BYTES_MAX].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


async def _lock_endpoints(connection: AsyncConnection, endpoint_ids: Iterable[UUID | None]) -> None:
    """Lock endpoints before deliveries, as those do who disable one: two such transactions then never deadlock."""
    wanted = sorted(endpoint_id for endpoint_id in endpoint_ids if endpoint_id)
    if wanted:
        await connection.execute(
            select(webhook_endpoints.c.id)
            .where(webhook_endpoints.c.id.in_(wanted))
            .order_by(webhook_endpoints.c.id)
            .with_for_update()
        )


async def _stop_telling(connection: AsyncConnection, now: datetime, gone: Sequence[ClaimedDelivery]) -> None:
    endpoint_ids = {delivery.endpoint_id for delivery in gone if delivery.endpoint_id}
    payment_ids = {delivery.payment_id for delivery in gone if delivery.kind == DeliveryKind.CALLBACK}
    if endpoint_ids:
        await connection.execute(
            update(webhook_endpoints)
            .where(webhook_endpoints.c.id.in_(endpoint_ids), webhook_endpoints.c.enabled)
            .values(enabled=False, disabled_reason=GONE, updated_at=now)
        )
        await _cancel(connection, now, GONE, deliveries.c.endpoint_id.in_(endpoint_ids))
    if payment_ids:
        of_callback = deliveries.c.kind == DeliveryKind.CALLBACK
        await _cancel(connection, now, GONE, deliveries.c.payment_id.in_(payment_ids) & of_callback)


async def _cancel(connection: AsyncConnection, now: datetime, reason: str, which: ColumnElement[bool]) -> int:
    is_open = deliveries.c.status.in_(OPEN_DELIVERY)
    wanted = select(deliveries.c.id).where(which, is_open).order_by(deliveries.c.id).with_for_update()  # lock order
    ended = await connection.execute(_ending(now, reason).where(deliveries.c.id.in_(wanted), is_open))
    return ended.rowcount


def _ending(now: datetime, reason: str) -> Update:
    return update(deliveries).values(
        status=DeliveryStatus.CANCELLED, due_at=None, last_error=_storable(reason), updated_at=now
    )


async def _is_wanted(connection: AsyncConnection, endpoint_id: UUID | None) -> bool:
    """False if the endpoint was deleted. Raises EndpointDisabled."""
    if endpoint_id is None:
        return True
    found = await connection.execute(
        select(webhook_endpoints.c.enabled, webhook_endpoints.c.deleted_at).where(webhook_endpoints.c.id == endpoint_id)
    )
    endpoint = found.one_or_none()
    if endpoint is None or endpoint.deleted_at is not None:
        return False
    if not endpoint.enabled:
        raise EndpointDisabled("the endpoint is disabled")
    return True
