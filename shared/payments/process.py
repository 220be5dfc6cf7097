"""Working on payments: claim, then record what the gateway said. Every write is guarded by status and attempt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import events
from shared.any_of import any_of
from shared.documents import Payment
from shared.leases import Ref, claim_locked, lock
from shared.lifecycle import MAY_BE_CLAIMED, MAY_BE_SETTLED, FailureCode, HistoryReason, PaymentStatus
from shared.models import payments
from shared.payments.history import WORKER, Move, append


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The gateway charged the payment."""

    reason: HistoryReason
    gateway: str
    gateway_transaction_id: str
    gateway_details: dict[str, Any]
    outcome_rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The payment failed for good; nothing was charged, or it was voided."""

    reason: HistoryReason
    gateway: str | None
    failure_code: FailureCode
    failure_reason: str
    gateway_details: dict[str, Any] | None
    outcome_rule: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The gateway said that nothing happened: ask again after `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """This worker stops: whoever comes next may claim the payment at once."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Nobody could say whether the order may be paid: ask again after `wait_s` seconds, the last time at `until`."""

    wait_s: float
    until: datetime


type Outcome = Approval | Failure | Retry | Postpone | Release


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one claim."""

    payment: Payment  # as it was claimed
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Recorded:
    """The payment after its record, and the deliveries that there are because of it."""

    payment: Payment
    told: events.Told = events.NOBODY


async def claim(
    connection: AsyncConnection, now: datetime, refs: Sequence[Ref], *, lease_s: float
) -> list[Payment | None]:
    """Claim each ticket's payment for `lease_s` seconds; None where somebody else was first, in the order of `refs`.

    The first claim takes a payment out of PENDING; a later one says in the history how the one before it ended.
    """
    held = await lock(connection, payments, refs, payments.c.status, payments.c.due_reason)
    claimed = await claim_locked(
        connection,
        payments,
        held,
        update(payments)
        .where(payments.c.status.in_(MAY_BE_CLAIMED))
        .values(
            status=PaymentStatus.PROCESSING,
            sequence=payments.c.sequence + 1,
            due_at=now + timedelta(seconds=lease_s),
            due_reason=HistoryReason.LEASE_EXPIRED,  # what the next claim will say if nobody records anything
            updated_at=now,
        ),
    )
    by_ref = {Ref(row["id"], row["attempt"] - 1): Payment.of(row) for row in claimed}
    await append(
        connection,
        [
            Move(
                payment,
                PaymentStatus(held[ref]["status"]),
                HistoryReason(held[ref]["due_reason"]),
                WORKER,
                {"attempt": payment.attempt},
            )
            for ref, payment in by_ref.items()
        ],
        now=now,
    )
    return [by_ref.pop(ref, None) for ref in refs]


async def record(
    connection: AsyncConnection,
    now: datetime,
    records: Sequence[Record],
    *,
    confirms_orders: bool = False,
    claim_deliveries_for_s: float | None = None,
) -> list[Recorded | None]:
    """Write down what became of each claim; None where the claim no longer holds the payment: nothing was changed.

    A payment that is settled gets its history row, its event and the event's deliveries in this transaction; with
    `confirms_orders` a completed one also that to the order service. See `events.tell` for the deliveries.
    """
    held = await lock(connection, payments, [item.payment.ref for item in records], payments.c.status)
    standing = {
        item.payment.ref: _after(item, now)
        for item in records
        if item.payment.ref in held and held[item.payment.ref]["status"] in MAY_BE_SETTLED
    }
    if standing:
        await connection.execute(_RECORD, [_columns(payment) for payment in standing.values()])
    settled = [
        Move(standing[item.payment.ref], PaymentStatus.PROCESSING, item.outcome.reason, WORKER, _told(item.outcome))
        for item in records
        if item.payment.ref in standing and isinstance(item.outcome, (Approval, Failure))
    ]
    await append(connection, settled, now=now)
    told = await events.tell(
        connection,
        [move.payment for move in settled],
        now=now,
        confirms_orders=confirms_orders,
        claim_for_s=claim_deliveries_for_s,
    )
    return [
        Recorded(payment, told.get(payment.id, events.NOBODY)) if (payment := standing.get(item.payment.ref)) else None
        for item in records
    ]


async def earlier_payments(connection: AsyncConnection, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many payments of the same user for the same order came before each of these."""
    earlier = payments.alias()
    found = await connection.execute(
        select(payments.c.id, func.count(earlier.c.id))
        .outerjoin(
            earlier,
            and_(
                earlier.c.order_id == payments.c.order_id,
                earlier.c.user_id == payments.c.user_id,
                earlier.c.id < payments.c.id,
            ),
        )
        .where(any_of(payments.c.id, payment_ids))
        .group_by(payments.c.id)
    )
    return {row[0]: row[1] for row in found}


_RECORDED_COLUMNS = (
    "status",
    "sequence",
    "gateway_tries",
    "due_at",
    "due_reason",
    "gateway",
    "gateway_transaction_id",
    "gateway_details",
    "outcome_rule",
    "failure_code",
    "failure_reason",
    "updated_at",
    "processed_at",
    "order_checks",
    "order_check_until",
)
_RECORD = (
    update(payments)
    .where(payments.c.id == bindparam("record_id"))
    .values({column: bindparam(column) for column in _RECORDED_COLUMNS})
)


def _columns(payment: Payment) -> dict[str, Any]:
    return {"record_id": payment.id, **{column: getattr(payment, column) for column in _RECORDED_COLUMNS}}


def _after(record: Record, now: datetime) -> Payment:
    """The payment as its outcome leaves it."""
    payment = record.payment
    match record.outcome:
        case Approval() as approval:
            return replace(
                payment,
                status=PaymentStatus.COMPLETED,
                gateway=approval.gateway,
                gateway_transaction_id=approval.gateway_transaction_id,
                gateway_details=approval.gateway_details,
                outcome_rule=approval.outcome_rule,
                **_settled(payment, now),
            )
        case Failure() as failure:
            return replace(
                payment,
                status=PaymentStatus.FAILED,
                gateway=failure.gateway,
                gateway_details=failure.gateway_details,
                outcome_rule=failure.outcome_rule,
                failure_code=failure.failure_code,
                failure_reason=failure.failure_reason,
                **_settled(payment, now),
            )
        case Retry(wait_s):
            return replace(
                payment,
                gateway_tries=payment.gateway_tries + 1,
                due_at=now + timedelta(seconds=wait_s),
                due_reason=HistoryReason.RETRIED,
            )
        case Postpone(wait_s, until):
            return replace(
                payment,
                order_checks=payment.order_checks + 1,
                order_check_until=until,
                due_at=max(now, min(now + timedelta(seconds=wait_s), until)),
                due_reason=HistoryReason.ORDER_UNREACHABLE,
            )
        case Release():
            return replace(payment, due_at=now, due_reason=HistoryReason.RELEASED)


def _settled(payment: Payment, now: datetime) -> dict[str, Any]:
    return {
        "sequence": payment.sequence + 1,
        "due_at": None,
        "due_reason": None,
        "updated_at": now,
        "processed_at": now,
    }


def _told(outcome: Approval | Failure) -> dict[str, Any]:
    match outcome:
        case Approval():
            return {"gateway": outcome.gateway, "gateway_transaction_id": outcome.gateway_transaction_id}
        case Failure():
            return {"gateway": outcome.gateway, "failure_code": outcome.failure_code}
