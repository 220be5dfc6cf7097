"""Recording what a claim of a refund ended with. Every write is guarded by status and lease version."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import lock
from shared.database.refund_tables import refunds
from shared.payments.find import lock_whole_many
from shared.payments.history import WORKER
from shared.payments.outcomes import Approved, Declined, GatewayAnswer, Release, Retry, Unsettled, with_remark
from shared.refund_lifecycle import MAY_BE_SETTLED, RefundHistoryReason, RefundStatus
from shared.refunds.history import RefundMove, append
from shared.refunds.outcomes import RefundOutcome, RefundSettled, RefundWork
from shared.refunds.refund import Refund
from shared.refunds.steps import Step, with_refund_ended, write_steps
from shared.webhooks.fan_out import NO_DELIVERIES, EmittedDeliveries


@dataclass(frozen=True, slots=True)
class RefundRecord:
    """What one claim ended with. `work` is the refund as it was claimed."""

    work: RefundWork
    outcome: RefundOutcome


@dataclass(frozen=True, slots=True)
class RefundRecorded:
    """A refund after its record, and the deliveries of the events that the record emitted."""

    refund: Refund
    deliveries: EmittedDeliveries = NO_DELIVERIES


async def record_refunds(
    connection: AsyncConnection,
    now: datetime,
    records: Sequence[RefundRecord],
    *,
    cancels_orders: bool = False,
    lease_deliveries_for_s: float | None = None,
) -> list[RefundRecorded | None]:
    """Write down what each claim ended with, in the order of `records`.

    The list has None where the claim no longer holds the refund: nothing was changed. A refund that has ended moves its
    payment in this transaction; with `cancels_orders` the order service is told of a REFUNDED one. See
    `shared.webhooks.fan_out` for `lease_deliveries_for_s`.
    """
    settled_payments = {
        record.work.refund.payment_id for record in records if isinstance(record.outcome, RefundSettled)
    }
    payments = await lock_whole_many(connection, settled_payments)
    items = [record.work.refund.work_item for record in records]
    held = await lock(connection, refunds, items, refunds.c.status, refunds.c.sequence)
    # By work item: a batch may have two claims of one refund, of which the older one holds it no more.
    after = {
        record.work.refund.work_item: _after(record.work.refund, record.outcome, now)
        for record in records
        if (row := held.get(record.work.refund.work_item)) is not None
        and row["status"] in MAY_BE_SETTLED
        # A claim that is recorded twice found the gateway's answer pending: the row has the first record.
        and row["sequence"] == record.work.refund.sequence
    }
    if after:
        await connection.execute(_RECORD, [_parameters(refund) for refund in after.values()])
    unsettled = [
        (refund, record.outcome.answer)
        for record in records
        if isinstance(record.outcome, Unsettled) and (refund := after.get(record.work.refund.work_item)) is not None
    ]
    await append(
        connection,
        [
            RefundMove(
                refund,
                RefundStatus.PROCESSING,
                RefundHistoryReason.GATEWAY_PENDING,
                WORKER,
                {"gateway": answer.gateway},
            )
            for refund, answer in unsettled
        ],
        now=now,
    )
    steps: list[Step] = []
    for record in records:
        refund = after.get(record.work.refund.work_item)
        if refund is None or not isinstance(record.outcome, RefundSettled):
            continue
        before = payments[refund.payment_id]
        # The next refund of the same payment goes on from here.
        payments[refund.payment_id] = with_refund_ended(before, refund, now)
        steps.append(
            Step(
                before,
                payments[refund.payment_id],
                refund,
                RefundStatus.PROCESSING,
                record.outcome.reason,
                WORKER,
                _told(record.outcome.answer),
            )
        )
    emitted = await write_steps(
        connection, steps, now=now, cancels_orders=cancels_orders, lease_for_s=lease_deliveries_for_s
    )
    # The deliveries of a payment's events are handed to the first of its refunds in this batch.
    return [
        RefundRecorded(refund, emitted.pop(refund.payment_id, NO_DELIVERIES))
        if (refund := after.get(record.work.refund.work_item))
        else None
        for record in records
    ]


_RECORDED_COLUMNS = (
    "status",
    "sequence",
    "gateway_tries",
    "due_at",
    "due_reason",
    "gateway",
    "gateway_transaction_id",
    "failure_code",
    "failure_reason",
    "updated_at",
    "processed_at",
    "simulated",
)
_RECORD = (
    update(refunds)
    .where(refunds.c.id == bindparam("record_id"))
    .values({"held_until": None} | {column: bindparam(column) for column in _RECORDED_COLUMNS})
)


def _parameters(refund: Refund) -> dict[str, Any]:
    return {"record_id": refund.id, **{column: getattr(refund, column) for column in _RECORDED_COLUMNS}}


def _after(refund: Refund, outcome: RefundOutcome, now: datetime) -> Refund:
    """Return the refund as its outcome leaves it."""
    return replace(_moved(refund, outcome, now), simulated=with_remark(refund.simulated, outcome))


def _moved(refund: Refund, outcome: RefundOutcome, now: datetime) -> Refund:
    match outcome:
        case RefundSettled(answer):
            return _settled(refund, answer, now)
        case Unsettled(answer, ask_after_s):
            return replace(
                refund,
                gateway=answer.gateway,
                sequence=refund.sequence + 1,
                # This claim has got an answer, so it does not count against MAX_CLAIMS.
                gateway_tries=refund.gateway_tries + 1,
                due_at=now + timedelta(seconds=ask_after_s),
                due_reason=RefundHistoryReason.GATEWAY_SETTLED,
                updated_at=now,
                held_until=None,
            )
        case Retry(wait_s):
            return replace(
                refund,
                gateway_tries=refund.gateway_tries + 1,
                due_at=now + timedelta(seconds=wait_s),
                due_reason=(
                    RefundHistoryReason.GATEWAY_TIMED_OUT if outcome.is_timeout else RefundHistoryReason.RETRIED
                ),
                held_until=None,
            )
        case Release():
            return replace(refund, due_at=now, due_reason=RefundHistoryReason.RELEASED, held_until=None)
        case _:
            assert_never(outcome)


def _settled(refund: Refund, answer: GatewayAnswer, now: datetime) -> Refund:
    common: dict[str, Any] = {
        "gateway": answer.gateway,
        "sequence": refund.sequence + 1,
        "due_at": None,
        "due_reason": None,
        "updated_at": now,
        "processed_at": now,
        "held_until": None,
    }
    match answer:
        case Approved():
            return replace(
                refund, status=RefundStatus.COMPLETED, gateway_transaction_id=answer.transaction_id, **common
            )
        case Declined():
            return replace(
                refund,
                status=RefundStatus.FAILED,
                failure_code=answer.failure_code,
                failure_reason=answer.failure_reason,
                **common,
            )
        case _:
            assert_never(answer)


def _told(answer: GatewayAnswer) -> dict[str, Any]:
    """Return what the history keeps of the gateway's answer."""
    match answer:
        case Approved(gateway, transaction_id):
            return {"gateway": gateway, "gateway_transaction_id": transaction_id}
        case Declined(gateway, failure_code):
            return {"gateway": gateway, "failure_code": failure_code}
        case _:
            assert_never(answer)
