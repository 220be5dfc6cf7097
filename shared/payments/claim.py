"""Claiming payments: the first claim takes a payment out of PENDING, every claim holds it under a lease."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.histories import claim_metadata
from shared.database.leases import Claimed, Ended, WorkItem, claim_locked, hold, lock
from shared.database.tables import payments
from shared.lifecycle import IN_PROGRESS, HistoryReason, PaymentStatus
from shared.payments.history import WORKER, Move, append
from shared.payments.payment import Payment
from shared.payments.requests import expire_actions
from shared.simulation.steered_work import is_steered_by_user, leave_steered


async def claim(
    connection: AsyncConnection,
    now: datetime,
    items: Sequence[WorkItem],
    *,
    lease_s: float,
    steered_max: int | None = None,
    real_now: datetime | None = None,
    worker: str | None = None,
) -> list[Claimed[Payment] | Ended[Payment] | None]:
    """Claim the payment of each item for `lease_s` seconds of real time, in the order of `items`.

    A payment whose customer did not answer in time ends here. The list has None where another worker was first or the
    payment has ended before. Of the payments that users steer, at most `steered_max` (None = all) are claimed, and the
    others are due again soon: they have None, too. A later claim says in the history how the one before it ended.
    `worker` is the name of the process that claims; the history has it for admins.
    """
    found = await lock(
        connection, payments, items, payments.c.status, payments.c.due_reason, is_steered_by_user(payments)
    )
    held = await leave_steered(connection, payments, found, steered_max=steered_max, now=now)
    waiting = [item.id for item, row in held.items() if row["status"] == PaymentStatus.REQUIRES_ACTION]
    expired = await expire_actions(connection, waiting, now=now) if waiting else {}
    claimed = await claim_locked(
        connection,
        payments,
        held,
        update(payments)
        .where(_may_be_claimed(now))
        .values(
            status=PaymentStatus.PROCESSING,
            sequence=payments.c.sequence + 1,
            **hold(now, lease_s, real_now),
            # What the next claim will say if this one records nothing.
            due_reason=HistoryReason.LEASE_EXPIRED,
            updated_at=now,
            # A version that knows no operations would charge the payment. It does not write this column, so that the
            # table refuses its claim.
            operation_claim=case((payments.c.operation.is_not(None), payments.c.lease_version + 1)),
        ),
    )
    by_item: dict[WorkItem, Claimed[Payment]] = {}
    for row in claimed:
        item = WorkItem(row["id"], row["lease_version"] - 1)
        by_item[item] = Claimed(Payment.of(row), HistoryReason(held[item]["due_reason"]))
    await append(
        connection,
        [
            Move(
                one.row,
                PaymentStatus(held[item]["status"]),
                HistoryReason(one.reason),
                WORKER,
                claim_metadata(one.row.lease_version, worker),
            )
            for item, one in by_item.items()
        ],
        now=now,
    )
    ended = {payment_id: Ended(one.payment, one.deliveries) for payment_id, one in expired.items()}
    return [by_item.pop(item, None) or ended.pop(item.id, None) for item in items]


def _may_be_claimed(now: datetime) -> ColumnElement[bool]:
    # What waits for a client is claimed when its authorization is over: until then a capture is accepted.
    is_over = and_(payments.c.status == PaymentStatus.AUTHORIZED, payments.c.capture_before <= now)
    return or_(payments.c.status.in_(IN_PROGRESS), is_over)
