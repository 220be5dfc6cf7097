"""The entries of the simulated gateway's ledger, for admins who look at a payment. Only the gateway writes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import columns_of, gateway_ledger


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What happened to the money of a payment, in the words of the gateway; `amount` is in minor units."""

    step: int
    kind: str
    amount: int
    currency: str
    answer: dict[str, Any]
    created_at: datetime


async def ledger_of_payment(connection: AsyncConnection, payment_id: UUID, *, limit: int) -> list[LedgerEntry]:
    """Return at most `limit` entries of the payment in the order of their steps: what is pending comes first."""
    columns = columns_of(gateway_ledger, "step", "kind", "amount", "currency", "answer", "created_at")
    of_payment = gateway_ledger.c.payment_id == payment_id
    found = await connection.execute(select(*columns).where(of_payment).order_by(gateway_ledger.c.step).limit(limit))
    return [LedgerEntry(*row) for row in found]
