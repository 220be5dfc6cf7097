"""The amounts of a payment beyond its own: authorized, captured, refunded and reserved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The amounts of a payment in minor units: 0 <= refunded + reserved <= captured <= authorized.

    `reserved` is the sum of the refunds that have been accepted and have not ended.
    """

    authorized: int
    captured: int
    refunded: int = 0
    reserved: int = 0

    @classmethod
    def charged(cls, amount: int) -> Self:
        """Return the balance of a payment that was authorized and captured at once."""
        return cls(authorized=amount, captured=amount)

    @property
    def refundable(self) -> int:
        """What may still be refunded."""
        return self.captured - self.refunded - self.reserved

    def to_json(self) -> dict[str, int]:
        """Return the amounts as clients see them."""
        return {
            "amount_authorized": self.authorized,
            "amount_captured": self.captured,
            "amount_refunded": self.refunded,
            "amount_refundable": self.refundable,
        }


NOTHING = Balance(authorized=0, captured=0)
# The columns of `payment_balances` that make a balance.
COLUMNS = ("authorized", "captured", "refunded", "reserved")


def balance_of(row: Mapping[Any, Any]) -> Balance | None:
    """Return the balance in a row that was joined with `payment_balances`; None if the payment has none of its own."""
    return Balance(**{column: row[column] for column in COLUMNS}) if row["authorized"] is not None else None
