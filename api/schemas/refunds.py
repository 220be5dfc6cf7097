"""Models of refunds. They validate requests, and only describe responses.

Responses are built by `Refund.to_json` in `shared.refunds.refund`; a test compares them with these models.
"""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import AmountOfPart, Int64, Metadata, RequestModel, without_null
from api.schemas.simulation import RefundSteering, Simulation
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundReason, RefundStatus


class RefundRequest(RequestModel):
    """A request to refund a payment. It may have no members, and the body may be left out."""

    model_config = ConfigDict(
        json_schema_extra=without_null(
            {},
            {"amount": 500, "reason": "requested_by_customer", "metadata": {"rma": "7"}},
            {"simulation": {"outcomes": ["timeout_charged", "approve"]}},
        )
    )

    amount: AmountOfPart = None
    reason: RefundReason = Field(
        # No default in the schema: generators of clients cannot read one beside a reference.
        default_factory=lambda: RefundReason.OTHER,
        strict=False,
        description="Why the merchant refunds; `other` by default.",
    )
    metadata: Metadata = Field(default_factory=dict)
    simulation: RefundSteering | None = Field(
        default=None, description="What the calls of the refund to the gateway do."
    )


class Refund(BaseModel):
    """A refund of a payment, or of a part of it."""

    id: str
    payment_id: str
    order_id: str = Field(description="The order of the payment.")
    amount: Int64 = Field(description="In minor units of the currency.")
    currency: str = Field(description="ISO 4217 code: that of the payment.")
    status: RefundStatus
    reason: RefundReason = Field(description="Why the merchant refunds.")
    failure_code: RefundFailureCode | None = Field(description="Why the refund failed; null unless FAILED.")
    failure_reason: str | None = Field(description="`failure_code` in words for people; null unless FAILED.")
    gateway: str | None = Field(description="The simulated gateway; null before it has answered.")
    gateway_transaction_id: str | None = Field(description="The gateway's id of the refund; null unless COMPLETED.")
    sequence: int = Field(description="The number of entries in the refund's history. It is also its ETag.")
    metadata: Metadata
    simulation: Simulation | None = Field(description="What was steered about it; null if nothing was.")
    created_by: str = Field(
        description="The principal that asked for it, such as `service:shop`; `service:payments` is this service."
    )
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None = Field(
        description="When the refund became COMPLETED or FAILED; null before, and if it is cancelled."
    )


class RefundList(BaseModel):
    """A page of refunds, the newest first."""

    refunds: list[Refund]
    limit: int = Field(description="The largest number of refunds on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class RefundsOfPayment(RefundList):
    """A page of the refunds of a payment, the newest first."""

    payment_id: str


class RefundHistoryMetadata(BaseModel):
    """What is known beside the change. What does not apply is absent."""

    attempt: int | None = Field(default=None, description="The number of the claim by a worker.")
    worker: str | None = Field(default=None, description="The worker that claimed. Only admins see it.")
    gateway: str | None = Field(default=None, description="The gateway that answered.")
    gateway_transaction_id: str | None = Field(default=None, description="The gateway's id of the refund.")
    failure_code: RefundFailureCode | None = Field(default=None, description="Why the refund failed.")


class RefundHistoryEntry(BaseModel):
    """One entry in the history of a refund: a change of its status, or another claim by a worker."""

    sequence: int = Field(description="The number of the entry, from 1 and without gaps.")
    previous_status: RefundStatus | None = Field(description="null in the first entry.")
    new_status: RefundStatus
    reason: RefundHistoryReason
    metadata: RefundHistoryMetadata
    created_at: datetime
    created_by: str = Field(
        description="Who caused the entry: `worker`, or a principal such as `service:shop` or `admin:7`."
    )


class RefundHistory(BaseModel):
    """The history of a refund, the oldest entry first."""

    refund_id: str
    history: list[RefundHistoryEntry]
