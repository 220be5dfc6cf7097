"""A payment as a value, and its JSON form: the same in answers and in events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from shared.database.clock import rfc3339
from shared.database.leases import WorkItem
from shared.failure_advice import advice_for
from shared.lifecycle import PAID, CaptureMethod, PaymentOperation, PaymentStatus
from shared.payments.balance import NOTHING, Balance
from shared.simulation.calls import simulation_json
from shared.simulation.steered_work import USER_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A row of `payments`, every column under its key.

    `created_by` is the principal that asked for the payment, and `user_id` the user that pays. `amount` is in minor
    units of `currency`. `sequence` is the number of its history rows, and `lease_version` that of its claims. `due_at`
    is the moment at which a worker must claim it next, at the end of a lease too; None = never again. It is real time
    if `held_until` is the same moment, else service time. `operation` is what it is due for, None a charge;
    `operation_amount` is that of a capture. `operation_number` and `operation_version` are the sequence and the lease
    version when it became due for that. `operation_claim` is the lease version of its last claim, if it has an
    operation. `capture_before` is the end of the authorization; None = nothing can be captured. `balance` is the
    payment's row of amounts, if it has one.
    The customer may approve it until `action_expires_at`, at a page from which `return_url` leads back to the shop.
    `steering` is what the request for the present operation wants of its calls, `earlier_calls` the number of those
    that left it open, and `simulated` what was steered so far.
    `order_check_until` is the moment of the last check of an order that the order service does not answer; None = no
    check has gone unanswered.
    """

    id: UUID
    user_id: str
    created_by: str
    order_id: str
    payment_method_id: UUID
    amount: int
    currency: str
    description: str | None
    metadata: dict[str, str]
    callback_url: str | None
    idempotency_key: str | None
    correlation_id: str | None
    method: dict[str, Any]
    status: PaymentStatus
    sequence: int
    lease_version: int
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
    capture_method: str | None = None
    operation: str | None = None
    operation_amount: int | None = None
    operation_number: int | None = None
    operation_version: int | None = None
    operation_claim: int | None = None
    capture_before: datetime | None = None
    last_capture_error: dict[str, Any] | None = None
    return_url: str | None = None
    action_expires_at: datetime | None = None
    action_result: str | None = None
    steering: dict[str, Any] | None = None
    earlier_calls: int | None = None
    simulated: list[dict[str, Any]] | None = None
    held_until: datetime | None = None
    balance: Balance | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any], balance: Balance | None = None) -> Self:
        """Return the payment of a row that was selected with `columns_of`."""
        return cls(**{**row, "status": PaymentStatus(row["status"])}, balance=balance)

    @property
    def since(self) -> datetime:
        """The moment of its status; while it is PROCESSING, that of the latest claim."""
        is_unmoved = self.status in {PaymentStatus.COMPLETED, PaymentStatus.FAILED}
        return self.processed_at if self.processed_at and is_unmoved else self.updated_at

    @property
    def is_settled(self) -> bool:
        """The payment has ended, or waits for a client."""
        return self.status.is_settled

    @property
    def is_steered_by_user(self) -> bool:
        """A user has asked for certain calls to the gateway, which may take longer than others do."""
        return self.steering is not None and self.created_by.startswith(USER_PREFIX)

    @property
    def work_item(self) -> WorkItem:
        """The row with its current lease version."""
        return WorkItem(self.id, self.lease_version)

    @property
    def due_for(self) -> PaymentOperation:
        """What the payment is due for, or was when it ended."""
        return PaymentOperation(self.operation or PaymentOperation.CHARGE)

    @property
    def claims(self) -> int:
        """The number of claims for the present operation."""
        return self.lease_version - (self.operation_version or 0)

    @property
    def amounts(self) -> Balance:
        """The amounts of the payment: those of its row, or what its status says."""
        if self.balance is not None:
            return self.balance
        return Balance.charged(self.amount) if self.status in PAID else NOTHING

    def to_json(self, next_action: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the payment as clients see it. `next_action` is for those only who may approve it."""
        return {
            "id": str(self.id),
            "order_id": self.order_id,
            "user_id": self.user_id,
            "created_by": self.created_by,
            # A ready-made method is shown by its name.
            "payment_method_id": self.method.get("name") or str(self.payment_method_id),
            "amount": self.amount,
            "currency": self.currency,
            "description": self.description,
            "metadata": self.metadata,
            "callback_url": self.callback_url,
            "status": self.status.value,
            "capture_method": self.capture_method or CaptureMethod.AUTOMATIC.value,
            **self.amounts.to_json(),
            "return_url": self.return_url,
            "next_action": next_action,
            "capture_before": rfc3339(self.capture_before) if self.capture_before else None,
            "last_capture_error": self.last_capture_error,
            "gateway": self.gateway,
            "gateway_transaction_id": self.gateway_transaction_id,
            "failure_code": self.failure_code,
            "failure_reason": self.failure_reason,
            "failure_advice": advice_for(self.failure_code),
            "outcome_rule": self.outcome_rule,
            "payment_method_details": {"type": self.method["type"], **self.method["details"]},
            "gateway_details": self.gateway_details,
            "simulation": simulation_json(self.steering, self.simulated),
            "sequence": self.sequence,
            "livemode": False,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "processed_at": rfc3339(self.processed_at) if self.processed_at else None,
        }
