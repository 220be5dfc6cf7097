"""A sound world beyond the plain charge for the tests of `payments verify`: authorizations, captures and refunds."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.refund_tables import payment_balances, refund_history, refunds
from shared.database.tables import gateway_ledger, payments
from shared.ids import new_id
from shared.lifecycle import ActionResult, CaptureMethod, HistoryReason, PaymentOperation
from shared.payments.outcomes import (
    ActionNeeded,
    ActionRequired,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    Pending,
    Settled,
    Unsettled,
    Voided,
)
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from shared.payments.requests import Requested, answer_action, cancel, capture
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundReason
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundSettled
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.refund import Refund
from shared.refunds.requests import RefundMoved, RefundRequest, cancel_refund, request_refund
from tests.support.rows import claim
from tests.support.settling import APPROVED
from tests.support.verified import CALLBACK, NOW, accept, record_entry, settle

HELD = Approved("stripe_mock", "ch_1", {}, "rate")
PAID_BACK = Approved("stripe_mock", "re_1", {}, "rate")
REFUSED = Declined("stripe_mock", RefundFailureCode.REFUND_DECLINED, "Refused.", {}, "card")
VALID_S = 3600.0
CAPTURED = 1000


@dataclass(frozen=True, slots=True)
class MoneyWorld:
    """The ids in it."""

    authorized: UUID
    # Due for a capture, which no worker has claimed yet.
    capturing: UUID
    voided: UUID
    # Captured in part, with a callback URL; its refunds are the next five.
    partly: UUID
    # A plain charge that is refunded as a whole.
    refunded: UUID
    completed: Refund
    failed: Refund
    cancelled: Refund
    processing: Refund
    pending: Refund
    # Waits for its customer.
    asking: UUID
    # Its customer declined it.
    refused: UUID
    # The gateway settles it later.
    late: UUID


async def build_money(database: Database) -> MoneyWorld:
    """Write the world down, with the verbs of the service; the ledger is written by hand."""
    held, capturing, voided, partly = [await authorized(database, CALLBACK if n == 3 else None) for n in range(4)]
    refunded = await accept(database)
    async with database.transaction() as connection:
        await requested(connection, capturing, None)
        await settle(connection, refunded, APPROVED, confirms_order=True)
        await record_entry(connection, refunded.id, "sale", 1)
        await refund(connection, refunded.id, None, completes=True)
        await void(connection, voided)
        await requested(connection, partly, CAPTURED)
        await worked(connection, partly.id, 1, Settled(HELD, HistoryReason.CAPTURED))
        await of_number(connection, partly.id, "capture", 4, CAPTURED)
        completed = await refund(connection, partly.id, 300, completes=True)
        failed = await refund(connection, partly.id, 200, completes=False)
        cancelled, processing, pending = [await asked(connection, partly.id, amount) for amount in (100, 50, 25)]
        assert await cancel_refund(connection, cancelled, by="service:shop", now=NOW)
        assert await claim_refunds(connection, datetime.now(UTC), [processing.work_item], lease_s=30) != [None]
    asking, refused, late = [await undecided(database) for _ in range(3)]
    async with database.transaction() as connection:
        for payment in (asking, refused):
            await worked(connection, payment.id, 0, ActionNeeded(ActionRequired("stripe_mock"), VALID_S))
        declined = ActionResult.DECLINED
        assert await answer_action(connection, refused.id, result=declined, by="customer", now=NOW)
        await worked(connection, late.id, 0, Unsettled(Pending("stripe_mock", 10.0), 40.0))
        await record_entry(connection, late.id, "pending", 0)
    return MoneyWorld(
        held.id,
        capturing.id,
        voided.id,
        partly.id,
        refunded.id,
        completed,
        failed,
        cancelled,
        processing,
        pending,
        asking.id,
        refused.id,
        late.id,
    )


async def undecided(database: Database) -> Payment:
    """Accept a payment that its customer may have to approve."""
    return await accept(database, return_url="https://shop.example/paid", operation=PaymentOperation.CHARGE)


async def authorized(database: Database, callback_url: str | None = None) -> Payment:
    """Authorize a payment to be captured on request."""
    payment = await accept(
        database,
        callback_url=callback_url,
        capture_method=CaptureMethod.MANUAL,
        operation=PaymentOperation.AUTHORIZE,
    )
    async with database.transaction() as connection:
        await worked(connection, payment.id, 0, Authorized(HELD, VALID_S))
        await record_entry(connection, payment.id, "authorize", 1)
    return payment


async def requested(connection: AsyncConnection, payment: Payment, amount: int | None) -> None:
    """Request the capture of a payment."""
    moved = await capture(connection, payment.id, amount=amount, by="service:shop", now=NOW)
    assert isinstance(moved, Requested)
    assert moved.is_moved


async def void(connection: AsyncConnection, payment: Payment) -> None:
    """Cancel an authorized payment, and void it."""
    assert await cancel(connection, payment.id, by="user:1", now=NOW)
    await worked(connection, payment.id, 1, Settled(Voided("stripe_mock"), HistoryReason.VOIDED))
    await record_entry(connection, payment.id, "void", 2)


async def worked(connection: AsyncConnection, payment_id: UUID, version: int, outcome: ClaimOutcome) -> None:
    """Claim a payment and record the outcome, as a worker does."""
    [held] = await claim(connection, NOW, [WorkItem(payment_id, version)], lease_s=30)
    assert held is not None
    assert await record(connection, NOW, [Record(held, outcome)], confirms_orders=True) != [None]


async def asked(connection: AsyncConnection, payment_id: UUID, amount: int | None) -> Refund:
    """Request a refund."""
    request = RefundRequest(
        id=new_id(),
        amount=amount,
        reason=RefundReason.OTHER,
        metadata={},
        created_by="service:shop",
        correlation_id=None,
    )
    moved = await request_refund(connection, payment_id, request, now=NOW)
    assert isinstance(moved, RefundMoved)
    return moved.refund


async def refund(connection: AsyncConnection, payment_id: UUID, amount: int | None, *, completes: bool) -> Refund:
    """Request a refund, which the gateway pays or refuses; return it as it was requested."""
    new = await asked(connection, payment_id, amount)
    [work] = await claim_refunds(connection, NOW, [new.work_item], lease_s=30)
    assert work is not None
    outcome = (
        RefundSettled(PAID_BACK, RefundHistoryReason.GATEWAY_APPROVED)
        if completes
        else RefundSettled(REFUSED, RefundHistoryReason.GATEWAY_DECLINED)
    )
    assert await record_refunds(connection, NOW, [RefundRecord(work.row, outcome)]) != [None]
    kind = "refund" if completes else "refund_decline"
    await of_number(connection, payment_id, kind, new.number, new.amount, transaction_id="re_1")
    return new


async def of_number(
    connection: AsyncConnection, payment_id: UUID, kind: str, number: int, amount: int, transaction_id: str = "ch_1"
) -> None:
    """Insert the entry of a capture on request or of a refund."""
    key, answer = f"{payment_id}:{kind}:{number}", {"transaction_id": transaction_id}
    await record_entry(connection, payment_id, kind, number, key=key, amount=amount, answer=answer)


async def change(connection: AsyncConnection, payment_id: Any, **changes: Any) -> None:
    """Change the row of a payment."""
    await connection.execute(update(payments).where(payments.c.id == payment_id).values(**changes))


async def change_refund(connection: AsyncConnection, one: Refund, **changes: Any) -> None:
    """Change the row of a refund."""
    await connection.execute(update(refunds).where(refunds.c.id == one.id).values(**changes))


async def change_entry(connection: AsyncConnection, payment_id: Any, step: int, **changes: Any) -> None:
    """Change an entry of the gateway's ledger."""
    of_step = (gateway_ledger.c.payment_id == payment_id) & (gateway_ledger.c.step == step)
    await connection.execute(update(gateway_ledger).where(of_step).values(**changes))


async def remove_entry(connection: AsyncConnection, payment_id: Any, step: int) -> None:
    """Remove an entry of the gateway's ledger."""
    of_step = (gateway_ledger.c.payment_id == payment_id) & (gateway_ledger.c.step == step)
    await connection.execute(delete(gateway_ledger).where(of_step))


async def change_balance(connection: AsyncConnection, payment_id: Any, **changes: Any) -> None:
    """Change the balance of a payment."""
    of_payment = payment_balances.c.payment_id == payment_id
    await connection.execute(update(payment_balances).where(of_payment).values(**changes))


def of_step(one: Refund, sequence: int) -> Any:
    """Return the condition for a step in the history of a refund."""
    return (refund_history.c.refund_id == one.id) & (refund_history.c.sequence == sequence)
