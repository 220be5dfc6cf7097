"""Payments in the middle of their life, written straight into the tables, and what must hold of them at any moment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.leases import FIRST_RELAY_AFTER_S, Claimed, WorkItem
from shared.database.tables import columns_of, gateway_ledger, payment_history, payments
from shared.event_types import EventType
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments import claim as claims
from shared.payments.payment import Payment
from shared.verify.scan import DELIVERIES, LEDGER, RECORDS, Found, Scan
from tests.support.payment_rows import columns_of_payment
from tests.support.receivers import a_payment

BREACHES_MAX = 1000


def accepted(now: datetime, **changes: Any) -> Payment:
    """A payment as the API leaves it: PENDING, due for the relay in a moment."""
    pending = replace(
        a_payment(now),
        status=PaymentStatus.PENDING,
        sequence=1,
        lease_version=0,
        due_at=now + timedelta(seconds=FIRST_RELAY_AFTER_S),
        due_reason=HistoryReason.CLAIMED,
        gateway=None,
        gateway_transaction_id=None,
        gateway_details=None,
        outcome_rule=None,
        processed_at=None,
    )
    return replace(pending, **changes)


def claimed(now: datetime, *, claims: int = 1, due_at: datetime | None = None, **changes: Any) -> Payment:
    """A payment that a worker is, or was, working on; without `due_at` its lease is over at `now`."""
    return accepted(
        now,
        **{
            "status": PaymentStatus.PROCESSING,
            "sequence": 1 + claims,
            "lease_version": claims,
            "due_at": due_at or now,
            "due_reason": HistoryReason.LEASE_EXPIRED,
            **changes,
        },
    )


async def write(database: Database, *written: Payment) -> list[WorkItem]:
    """Insert payments with the history that belongs to them; return their work items."""
    async with database.transaction() as connection:
        await connection.execute(insert(payments), [columns_of_payment(payment) for payment in written])
        await connection.execute(insert(payment_history), [move for payment in written for move in _moves(payment)])
    return [payment.work_item for payment in written]


def _moves(payment: Payment) -> list[dict[str, Any]]:
    statuses = [None, PaymentStatus.PENDING, *[PaymentStatus.PROCESSING] * payment.lease_version]
    reasons = [HistoryReason.ACCEPTED, HistoryReason.CLAIMED, *[HistoryReason.LEASE_EXPIRED] * payment.lease_version]
    return [
        {
            "payment_id": payment.id,
            "sequence": number + 1,
            "previous_status": statuses[number],
            "new_status": statuses[number + 1],
            "reason": reasons[number],
            "metadata": {},
            "created_at": payment.created_at,
            "created_by": "worker" if number else payment.created_by,
        }
        for number in range(payment.sequence)
    ]


async def claim(
    connection: AsyncConnection, now: datetime, items: Sequence[WorkItem], *, lease_s: float
) -> list[Payment | None]:
    """Claim payments as a worker does; without the reasons of the claims, and those that end."""
    found = await claims.claim(connection, now, items, lease_s=lease_s)
    return [one.row if isinstance(one, Claimed) else None for one in found]


async def read(database: Database, payment_id: UUID) -> Payment:
    """The payment as it is now."""
    async with database.read() as connection:
        found = await connection.execute(select(*columns_of(payments)).where(payments.c.id == payment_id))
    return Payment.of(found.mappings().one())


async def read_all(database: Database) -> list[Payment]:
    """Every payment, the oldest first."""
    async with database.read() as connection:
        found = await connection.execute(select(*columns_of(payments)).order_by(payments.c.id))
    return [Payment.of(row) for row in found.mappings()]


async def are_settled(database: Database, count: int) -> bool:
    """There are `count` payments and every one has ended."""
    found = await read_all(database)
    return len(found) == count and all(payment.status.has_ended for payment in found)


async def reasons(database: Database, payment_id: UUID) -> list[str]:
    """Why the payment moved, each time."""
    async with database.read() as connection:
        found = await connection.execute(
            select(payment_history.c.reason)
            .where(payment_history.c.payment_id == payment_id)
            .order_by(payment_history.c.sequence)
        )
    return list(found.scalars())


async def ledger_entries(database: Database, payment_id: UUID) -> list[str]:
    """What the gateway's own ledger says happened to the payment."""
    async with database.read() as connection:
        found = await connection.execute(
            select(gateway_ledger.c.kind)
            .where(gateway_ledger.c.payment_id == payment_id)
            .order_by(gateway_ledger.c.step)
        )
    return list(found.scalars())


async def assert_sound(database: Database, *, with_ledger: bool = True) -> None:
    """What must hold at every moment, whatever was killed, as `payments verify` sees it."""
    scan = Scan(database, Found(shown_max=BREACHES_MAX))
    await scan.of_payments([*RECORDS, *DELIVERIES, *(LEDGER if with_ledger else ())])
    breaches = [(kind, ids) for kind, shown in scan.found.shown.items() for ids in shown]
    # `write` emits no event for the beginning.
    wrong = [each for each in breaches if each[1].get("event_type") != EventType.INITIATED]
    assert wrong == [], wrong
