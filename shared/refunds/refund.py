"""A refund as a value, and its JSON form: the same in answers and in events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self
from uuid import UUID

from shared.database.clock import rfc3339
from shared.database.leases import WorkItem
from shared.refund_lifecycle import RefundStatus
from shared.simulation.calls import simulation_json
from shared.simulation.steered_work import USER_PREFIX


class _OfPayment(Protocol):
    """What a refund shows of its payment."""

    @property
    def order_id(self) -> str: ...

    @property
    def currency(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """A row of `refunds`, every column under its key.

    `amount` is in minor units of the payment's currency. `number` is the payment's sequence at the request, which is
    also the refund's number at the gateway. `cause` says what made the service request it; None = a client did.
    `sequence` is the number of its history rows, and `lease_version` that of its claims. `due_at` is the moment at
    which a worker must claim it next, at the end of a lease too; None = never again. It is real time if `held_until` is
    the same moment, else service time.
    """

    id: UUID
    payment_id: UUID
    number: int
    amount: int
    reason: str
    metadata: dict[str, str]
    created_by: str
    cause: str | None
    correlation_id: str | None
    status: RefundStatus
    sequence: int
    lease_version: int
    gateway_tries: int
    due_at: datetime | None
    due_reason: str | None
    gateway: str | None
    gateway_transaction_id: str | None
    failure_code: str | None
    failure_reason: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None
    steering: dict[str, Any] | None = None
    simulated: list[dict[str, Any]] | None = None
    held_until: datetime | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the refund of a row that was selected with `columns_of`."""
        return cls(**{**row, "status": RefundStatus(row["status"])})

    @property
    def is_steered_by_user(self) -> bool:
        """A user has asked for certain calls to the gateway, which may take longer than others do."""
        return self.steering is not None and self.created_by.startswith(USER_PREFIX)

    @property
    def work_item(self) -> WorkItem:
        """The row with its current lease version."""
        return WorkItem(self.id, self.lease_version)

    def to_json(self, payment: _OfPayment) -> dict[str, Any]:
        """Return the refund of this payment as clients see it."""
        return {
            "id": str(self.id),
            "payment_id": str(self.payment_id),
            "order_id": payment.order_id,
            "amount": self.amount,
            "currency": payment.currency,
            "status": self.status.value,
            "reason": self.reason,
            "failure_code": self.failure_code,
            "failure_reason": self.failure_reason,
            "gateway": self.gateway,
            "gateway_transaction_id": self.gateway_transaction_id,
            "sequence": self.sequence,
            "metadata": self.metadata,
            "simulation": simulation_json(self.steering, self.simulated),
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "processed_at": rfc3339(self.processed_at) if self.processed_at else None,
        }
