"""Claiming refunds: the first claim takes a refund out of PENDING, every claim holds it under a lease."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.histories import claim_metadata
from shared.database.leases import Claimed, WorkItem, claim_locked, hold, lock
from shared.database.refund_tables import refunds
from shared.payments.find import find_many
from shared.payments.history import WORKER
from shared.refund_lifecycle import MAY_BE_CLAIMED, RefundHistoryReason, RefundStatus
from shared.refunds.history import RefundMove, append
from shared.refunds.outcomes import RefundWork
from shared.refunds.refund import Refund
from shared.simulation.steered_work import is_steered_by_user, leave_steered


async def claim_refunds(
    connection: AsyncConnection,
    now: datetime,
    items: Sequence[WorkItem],
    *,
    lease_s: float,
    steered_max: int | None = None,
    real_now: datetime | None = None,
    worker: str | None = None,
) -> list[Claimed[RefundWork] | None]:
    """Claim the refund of each item for `lease_s` seconds of real time, in the order of `items`.

    The list has None where another worker was first or the refund has ended. Of the refunds that users steer, at most
    `steered_max` are claimed (None = all), and the others are due again soon: they have None, too. `worker` is the name
    of the process that claims; the history has it for admins.
    """
    found = await lock(connection, refunds, items, refunds.c.status, refunds.c.due_reason, is_steered_by_user(refunds))
    held = await leave_steered(connection, refunds, found, steered_max=steered_max, now=now)
    claimed = await claim_locked(
        connection,
        refunds,
        held,
        update(refunds)
        .where(refunds.c.status.in_(MAY_BE_CLAIMED))
        .values(
            status=RefundStatus.PROCESSING,
            sequence=refunds.c.sequence + 1,
            **hold(now, lease_s, real_now),
            # What the next claim will say if this one records nothing.
            due_reason=RefundHistoryReason.LEASE_EXPIRED,
            updated_at=now,
        ),
    )
    of_claims = {WorkItem(row["id"], row["lease_version"] - 1): Refund.of(row) for row in claimed}
    moves = [
        RefundMove(
            refund,
            RefundStatus(held[item]["status"]),
            RefundHistoryReason(held[item]["due_reason"]),
            WORKER,
            claim_metadata(refund.lease_version, worker),
        )
        for item, refund in of_claims.items()
    ]
    await append(connection, moves, now=now)
    payments = {
        payment.id: payment
        for payment in await find_many(connection, {refund.payment_id for refund in of_claims.values()})
    }
    works = {
        item: Claimed(RefundWork(refund, payments[refund.payment_id]), held[item]["due_reason"])
        for item, refund in of_claims.items()
    }
    return [works.pop(item, None) for item in items]
