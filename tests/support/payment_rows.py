"""Payments as rows of their table."""

from typing import Any

from shared.database.tables import payments
from shared.payments.payment import Payment


def columns_of_payment(payment: Payment) -> dict[str, Any]:
    """Return the payment as a row of its table."""
    return {column.key: getattr(payment, column.key) for column in payments.columns}
