"""What attempts to confirm an order come to that was cancelled meanwhile, and what follows for its payment.

All of it is written in the transaction that records the attempts, so that a worker that dies loses nothing: either the
delivery ends and its payment's refund is requested, or the delivery stays due.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.refunds.order_conflicts import OrderConflict, lock_conflicts, settle_conflicts
from shared.webhooks.attempts import Conflict, DeliveryAttempt, Exhausted, RecordedOutcome, TryAgain, record_attempts
from shared.webhooks.order_deliveries import REFUNDED

# Seconds until a refund that waits for another one is tried again; they double with each attempt, up to the longest.
BLOCKED_S, BLOCKED_MAX_S = 5.0, 300.0
# A bound for the exponent: without it, a delivery with a thousand attempts would overflow a float.
DOUBLINGS_MAX = 16


async def record_with_conflicts(
    connection: AsyncConnection, now: datetime, attempts: Sequence[DeliveryAttempt], *, refunds_conflicts: bool
) -> list[RecordedOutcome | None]:
    """Record attempts and, for those whose order was cancelled meanwhile, emit the event and request the refund.

    Return, for each, what was recorded; None if its claim held the delivery no more.
    """
    payment_ids = {attempt.delivery.payment_id for attempt in attempts if attempt.outcome == Conflict()}
    if not payment_ids:
        return await record_attempts(connection, now, attempts)
    # Payments are locked before deliveries, here as everywhere: then no two transactions deadlock.
    conflicts = await lock_conflicts(connection, payment_ids)
    judged = [
        _judged(attempt, conflicts[attempt.delivery.payment_id], refunds_conflicts=refunds_conflicts)
        if attempt.outcome == Conflict()
        else attempt
        for attempt in attempts
    ]
    recorded = await record_attempts(connection, now, judged)
    held = [
        conflicts[attempt.delivery.payment_id]
        for attempt, outcome in zip(attempts, recorded, strict=True)
        if attempt.outcome == Conflict() and outcome is not None
    ]
    await settle_conflicts(connection, held, now=now, refunds_them=refunds_conflicts)
    return recorded


def _judged(attempt: DeliveryAttempt, conflict: OrderConflict, *, refunds_conflicts: bool) -> DeliveryAttempt:
    """Return the attempt with what it comes to for its payment."""
    if conflict.is_over:
        # The order was cancelled for the refund, or nothing is left to be done about it.
        return replace(attempt, outcome=Exhausted(), error=REFUNDED)
    if refunds_conflicts and conflict.is_blocked:
        wait_s = BLOCKED_S * 2 ** min(attempt.delivery.retries, DOUBLINGS_MAX)
        return replace(attempt, outcome=TryAgain(min(wait_s, BLOCKED_MAX_S)))
    return attempt
