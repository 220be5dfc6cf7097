"""What the verbs move of payments, their amounts and refunds, and the gateway's ledger, read at once."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from shared.database.engine import Database
from shared.database.refund_tables import payment_balances, refunds
from shared.database.tables import columns_of, gateway_ledger, payments
from shared.payments.balance import COLUMNS
from shared.refunds.refund import Refund


@dataclass(frozen=True, slots=True)
class MoneyRows:
    """The rows by the id of their payment or refund."""

    payments: dict[UUID, tuple[Any, ...]]
    # Authorized, captured, refunded and reserved.
    balances: dict[UUID, tuple[Any, ...]]
    refunds: list[Refund]
    # The kind and the amount of each step.
    ledger: dict[UUID, dict[int, tuple[str, int]]]

    @property
    def refund_columns(self) -> dict[UUID, tuple[Any, ...]]:
        """What the verbs move of each refund."""
        return {
            one.id: (one.status, one.amount, one.number, one.sequence, one.lease_version, one.due_at)
            for one in self.refunds
        }

    def refund(self, refund_id: UUID) -> Refund:
        """Return one of the refunds."""
        return next(one for one in self.refunds if one.id == refund_id)


async def money_rows(database: Database) -> MoneyRows:
    """Read all of them."""
    moving = ("id", "status", "sequence", "lease_version", "due_at", "operation", "capture_before", "action_expires_at",
              "action_result")  # fmt: skip
    async with database.read() as connection:
        of_payments = await connection.execute(select(*columns_of(payments, *moving)))
        of_balances = await connection.execute(select(*columns_of(payment_balances, "payment_id", *COLUMNS)))
        of_refunds = await connection.execute(select(*columns_of(refunds)))
        of_ledger = await connection.execute(
            select(*columns_of(gateway_ledger, "payment_id", "step", "kind", "amount"))
        )
        ledger: dict[UUID, dict[int, tuple[str, int]]] = {}
        for payment_id, step, kind, amount in of_ledger:
            ledger.setdefault(payment_id, {})[step] = kind, amount
        return MoneyRows(
            {row[0]: tuple(row[1:]) for row in of_payments},
            {row[0]: tuple(row[1:]) for row in of_balances},
            [Refund.of(row) for row in of_refunds.mappings()],
            ledger,
        )
