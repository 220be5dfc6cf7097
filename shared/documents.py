"""A payment as a value, and the documents that clients see of it. One shape for answers and for events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import orjson

from shared.clock import rfc3339
from shared.leases import Ref
from shared.lifecycle import EventType, PaymentStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A row of `payments`, every column under its own name."""

    id: UUID
    user_id: str
    created_by: str
    order_id: str
    payment_method_id: UUID
    amount: int  # minor units
    currency: str
    description: str | None
    metadata: dict[str, str]
    callback_url: str | None
    idempotency_key: str | None
    correlation_id: str | None
    method: dict[str, Any]
    status: PaymentStatus
    sequence: int
    attempt: int
    gateway_tries: int
    due_at: datetime | None
    due_reason: str | None
    gateway: str | None
    gateway_transaction_id: str | None
    gateway_details: dict[str, Any] | None
    outcome_rule: str | None
    failure_code: str | None
    failure_reason: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None
    order_checks: int = 0
    order_check_until: datetime | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """The payment that a row of the table holds."""
        return cls(**{**row, "status": PaymentStatus(row["status"])})

    @property
    def ref(self) -> Ref:
        """The ticket for its next claim."""
        return Ref(self.id, self.attempt)

    def document(self) -> dict[str, Any]:
        """The payment as clients see it."""
        return {
            "id": str(self.id),
            "order_id": self.order_id,
            "user_id": self.user_id,
            "payment_method_id": str(self.payment_method_id),
            "amount": self.amount,
            "currency": self.currency,
            "description": self.description,
            "metadata": self.metadata,
            "callback_url": self.callback_url,
            "status": self.status.value,
            "gateway": self.gateway,
            "gateway_transaction_id": self.gateway_transaction_id,
            "failure_code": self.failure_code,
            "failure_reason": self.failure_reason,
            "outcome_rule": self.outcome_rule,
            "payment_method_details": {"type": self.method["type"], **self.method["details"]},
            "gateway_details": self.gateway_details,
            "sequence": self.sequence,
            "livemode": False,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "processed_at": rfc3339(self.processed_at) if self.processed_at else None,
        }


def event_body(event: EventType, payment: Payment, *, happened_at: datetime) -> str:
    """The event's body, frozen: what is stored is what is signed and sent (Standard Webhooks' payload)."""
    return orjson.dumps(
        {
            "type": event.value,
            "timestamp": rfc3339(happened_at),
            "data": {"payment": payment.document(), "sequence": payment.sequence},
        }
    ).decode()
