"""Reads what an explanation is made from. All statements see the same moment, and each has a bound."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Column, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.id_list import id_in
from shared.database.refund_tables import refund_history, refunds
from shared.database.tables import columns_of, gateway_ledger, payment_history
from shared.explain.facts import RULE_PREFIX, Facts, HistoryRow, LedgerRow, RefundFacts
from shared.lifecycle import HistoryReason
from shared.payments.find import Visible, earlier_payments, find
from shared.refunds.refund import Refund
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.rule_store import find_rule
from shared.simulation.rules import Rule
from shared.webhooks.delivery_log import deliveries_of_payment

# What an explanation shows at most: of the payment's own history, of its refunds, the first; and of its deliveries.
HISTORY_MAX = 500
REFUNDS_MAX = 50
DELIVERIES_MAX = 50
# Entries of the ledger: two of each operation at most.
LEDGER_MAX = 2 * (HISTORY_MAX + REFUNDS_MAX)

OF_REFUNDS = (
    HistoryReason.REFUND_REQUESTED,
    HistoryReason.REFUND_COMPLETED,
    HistoryReason.REFUND_FAILED,
    HistoryReason.REFUND_CANCELLED,
)


async def read_facts(database: Database, payment_id: UUID, visible: Visible) -> Facts | None:
    """Return the rows of the payment if the principal may see it; else None, as if there were no such payment.

    Raises DatabaseUnavailable.
    """
    async with database.snapshot() as connection:
        payment = await find(connection, payment_id, visible)
        if payment is None:
            return None
        history = await _history(connection, payment_id)
        found, total = await _refunds(connection, payment_id)
        earlier = 0
        if payment.idempotency_key is None:
            earlier = (await earlier_payments(connection, [payment_id]))[payment_id]
        return Facts(
            payment=payment,
            history=tuple(history[:HISTORY_MAX]),
            has_more_history=len(history) > HISTORY_MAX,
            ledger=tuple(await _ledger(connection, payment_id)),
            refunds=tuple(found),
            refunds_total=total,
            deliveries=await deliveries_of_payment(connection, payment_id, limit=DELIVERIES_MAX, after_id=None),
            earlier=earlier,
            rule=await _rule(connection, payment.outcome_rule),
            now=await database.clock.now(connection),
        )


async def _rule(connection: AsyncConnection, outcome_rule: str | None) -> Rule | None:
    """Return the rule that decided; None if none did, or it was deleted."""
    if outcome_rule is None or not outcome_rule.startswith(RULE_PREFIX):
        return None
    return await find_rule(connection, UUID(outcome_rule.removeprefix(RULE_PREFIX)))


async def _history(connection: AsyncConnection, payment_id: UUID) -> list[HistoryRow]:
    rows = payment_history.c
    found = await connection.execute(
        select(payment_history)
        .where(rows.payment_id == payment_id, rows.reason.not_in(OF_REFUNDS))
        .order_by(rows.sequence)
        .limit(HISTORY_MAX + 1)
    )
    return [_history_row(row) for row in found.mappings()]


async def _ledger(connection: AsyncConnection, payment_id: UUID) -> list[LedgerRow]:
    rows = gateway_ledger.c
    found = await connection.execute(
        select(gateway_ledger)
        .where(rows.payment_id == payment_id)
        .order_by(rows.created_at, rows.step)
        .limit(LEDGER_MAX)
    )
    return [
        LedgerRow(
            key=row["key"],
            kind=EntryKind(row["kind"]),
            number=_number(row["key"]),
            amount=row["amount"],
            answer=row["answer"],
            at=row["created_at"],
        )
        for row in found.mappings()
    ]


async def _refunds(connection: AsyncConnection, payment_id: UUID) -> tuple[list[RefundFacts], int]:
    """Return the first refunds of the payment, and how many there are in all."""
    of_payment = refunds.c.payment_id == payment_id
    rows = select(*columns_of(refunds)).where(of_payment).order_by(refunds.c.number).limit(REFUNDS_MAX)
    found = [Refund.of(row) for row in (await connection.execute(rows)).mappings()]
    total = len(found)
    if total == REFUNDS_MAX:
        total = (await connection.execute(select(func.count()).where(of_payment))).scalar_one()
    histories = await _refund_histories(connection, [refund.id for refund in found])
    return [RefundFacts(one, tuple(histories.get(one.id, ())), earlier) for earlier, one in enumerate(found)], total


async def _refund_histories(connection: AsyncConnection, refund_ids: list[UUID]) -> dict[UUID, list[HistoryRow]]:
    if not refund_ids:
        return {}
    owner: Column[Any] = refund_history.c.refund_id
    found = await connection.execute(
        select(refund_history).where(id_in(owner, refund_ids)).order_by(owner, refund_history.c.sequence)
    )
    histories: dict[UUID, list[HistoryRow]] = {}
    for row in found.mappings():
        histories.setdefault(row["refund_id"], []).append(_history_row(row))
    return histories


def _history_row(row: Mapping[Any, Any]) -> HistoryRow:
    return HistoryRow(
        sequence=row["sequence"],
        status=row["new_status"],
        reason=row["reason"],
        metadata=row["metadata"],
        at=row["created_at"],
        by=row["created_by"],
    )


def _number(key: str) -> int | None:
    """Return the number of the operation in the key of an entry: {payment}:{kind}:{number}."""
    parts = key.split(":")
    return int(parts[2]) if len(parts) > 2 else None  # noqa: PLR2004 - payment and kind come first
