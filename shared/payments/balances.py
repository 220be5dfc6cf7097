"""The rows of `payment_balances`: written in the transaction that moves their payments."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.refund_tables import payment_balances
from shared.payments.balance import COLUMNS
from shared.payments.payment import Payment

_UPDATE = (
    update(payment_balances)
    .where(payment_balances.c.payment_id == bindparam("of_payment"))
    .values({column: bindparam(f"new_{column}") for column in COLUMNS})
)


async def insert_balances(connection: AsyncConnection, payments: Collection[Payment]) -> None:
    """Insert the first row of each payment, as its `balance` says."""
    if payments:
        await connection.execute(
            insert(payment_balances), [{"payment_id": payment.id, **_amounts(payment)} for payment in payments]
        )


async def update_balances(connection: AsyncConnection, payments: Collection[Payment]) -> None:
    """Write the `balance` of each payment to its row. The caller holds the lock of the payment."""
    if payments:
        await connection.execute(
            _UPDATE,
            [
                {"of_payment": payment.id, **{f"new_{column}": amount for column, amount in _amounts(payment).items()}}
                for payment in payments
            ],
        )


def _amounts(payment: Payment) -> dict[str, Any]:
    return {column: getattr(payment.amounts, column) for column in COLUMNS}
