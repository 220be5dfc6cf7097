"""Claiming payments: the first claim takes a payment out of PENDING, every claim holds it under a lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem, claim_locked, lock
from shared.database.tables import payments
from shared.lifecycle import MAY_BE_CLAIMED, HistoryReason, PaymentStatus
from shared.payments.history import WORKER, Move, append
from shared.payments.payment import Payment


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claimed payment, and the reason that its history gives for the claim."""

    payment: Payment
    reason: HistoryReason


async def claim(
    connection: AsyncConnection, now: datetime, items: Sequence[WorkItem], *, lease_s: float
) -> list[Claimed | None]:
    """Claim the payment of each item for `lease_s` seconds, in the order of `items`.

    The list has None where another worker was first or the payment has ended. A later claim says in the history how the
    one before it ended.
    """
    held = await lock(connection, payments, items, payments.c.status, payments.c.due_reason)
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
            # What the next claim will say if this one records nothing.
            due_reason=HistoryReason.LEASE_EXPIRED,
            updated_at=now,
        ),
    )
    by_item: dict[WorkItem, Claimed] = {}
    for row in claimed:
        item = WorkItem(row["id"], row["lease_version"] - 1)
        by_item[item] = Claimed(Payment.of(row), HistoryReason(held[item]["due_reason"]))
    await append(
        connection,
        [
            Move(
                one.payment,
                PaymentStatus(held[item]["status"]),
                one.reason,
                WORKER,
                {"attempt": one.payment.lease_version},
            )
            for item, one in by_item.items()
        ],
        now=now,
    )
    return [by_item.pop(item, None) for item in items]
