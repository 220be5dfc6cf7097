"""Models of the explanation of a payment. They only describe responses.

Responses are built by `Explanation.to_json` in `shared.explain.explanation`; a test compares them with these models.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import Int64
from api.schemas.webhooks import Delivery
from shared.explain.draws import Purpose
from shared.explain.timeline import PartName
from shared.lifecycle import CaptureFailureCode, FailureCode, HistoryReason, PaymentStatus
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundStatus
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.rules import Pace

type Reason = HistoryReason | RefundHistoryReason


class ExplanationSection(BaseModel):
    """A part of the explanation in words."""

    heading: str
    sentences: list[str]
    commands: list[str] = Field(description="Commands to paste into a shell, with $API, $TOKEN and $ID.")


class Draw(BaseModel):
    """A random number from 0 to 1 that decided something."""

    purpose: Purpose = Field(description="What it was drawn for.")
    value: float = Field(description="The number, cut after four decimals, or after more if it is near `threshold`.")
    threshold: float | None = Field(
        description="What it was compared with: below it, the charge is approved, the failure code or the first "
        "gateway is chosen, or a refund does not reach the gateway. null for a delay, which it is a part of."
    )
    call: int | None = Field(description="The number of the call that it was drawn for; null = for all of them.")


class FiredCall(BaseModel):
    """What a rule made of one call."""

    call: int
    outcome: str | None
    delay_ms: int | None
    pace: Pace | None


class FiredRule(BaseModel):
    """The rule of an admin that decided."""

    id: str
    name: str | None = Field(description="null if it is not on record.")
    effect: list[FiredCall] = Field(description="What it did, call by call.")


class Decision(BaseModel):
    """What decided the outcome of the charge or the authorization."""

    by: str | None = Field(description="The `outcome_rule` of the payment; null if nothing is decided.")
    rule: FiredRule | None = Field(description="null unless a rule decided.")
    failure_code: FailureCode | None
    draws: list[Draw]


class ExplainedCall(BaseModel):
    """A call to the gateway."""

    number: int = Field(description="The number of the call, of those for its operation.")
    steered_by: str | None = Field(description="`request`, or `rule:` with the id of the rule; null = nothing did.")
    outcome: str | None = Field(description="What it was made to do.")
    delay_ms: int | None = Field(description="How long it was made to take, in milliseconds.")
    pace: Pace | None = Field(description="How long it was made to take, in other words than milliseconds.")
    draws: list[Draw]


class ExplainedClaim(BaseModel):
    """A claim by a worker."""

    number: int = Field(description="The number of the claim, of all of the payment or the refund.")
    reason: Reason = Field(description="Why a worker took it up.")
    claimed_at: datetime
    ended_with: Reason | None = Field(description="The reason of what came next; null while the claim goes on.")
    ended_at: datetime | None
    call: ExplainedCall | None = Field(description="The call to the gateway; null if none was made.")
    worker: str | None = Field(default=None, description="The worker that claimed. Only admins see it.")


class ExplainedLedgerEntry(BaseModel):
    """An entry of the gateway's own ledger."""

    kind: EntryKind
    amount: Int64 = Field(description="In minor units of the currency.")
    at: datetime
    gateway: str | None
    gateway_transaction_id: str | None
    failure_code: FailureCode | CaptureFailureCode | RefundFailureCode | None
    outcome_rule: str | None = Field(description="What decided this answer of the gateway.")
    key: str | None = Field(default=None, description="The primary key of the entry. Present only for admins.")


class ExplainedRow(BaseModel):
    """A row of the history."""

    reason: Reason
    at: datetime


class ExplainedOperation(BaseModel):
    """An operation: what happened, claim by claim."""

    operation: Literal["charge", "authorize", "capture", "void", "refund"]
    amount: Int64 = Field(description="In minor units of the currency.")
    currency: str
    history: list[ExplainedRow]
    claims: list[ExplainedClaim]
    ledger: list[ExplainedLedgerEntry]


class TimePart(BaseModel):
    """A part of the time."""

    name: PartName
    ms: Int64 = Field(description="Milliseconds.")
    operation: str | None = Field(description="The operation of the call, where it is the time of a call.")
    number: int | None = Field(description="The number of the call, where it is the time of one.")


class ExplainedTime(BaseModel):
    """Where the time went. The parts follow each other, and add up to the whole."""

    total_ms: Int64 = Field(description="The whole, in milliseconds.")
    parts: list[TimePart]


class ExplainedRefund(ExplainedOperation):
    """A refund of the payment."""

    id: str
    status: RefundStatus
    time: ExplainedTime


class ExplainedDelivery(Delivery):
    """A delivery with its attempts."""

    time: ExplainedTime


class AgainBody(BaseModel):
    """The body of a request, as its operation describes it."""

    model_config = ConfigDict(extra="allow")


class AgainRequest(BaseModel):
    """A request of those that make the same outcome again."""

    method: Literal["POST"]
    path: str = Field(description="Below the path of the API. `$ID` is the id in the answer to the first request.")
    body: AgainBody | None = Field(description="null = the request has no body.")
    curl: str = Field(description="The request as a command for a shell, with $API, $TOKEN and $ID.")


class Again(BaseModel):
    """The requests that make the same outcome again, one after the other."""

    is_same_outcome: bool = Field(description="false where no request can promise the same outcome.")
    requests: list[AgainRequest]


class Explanation(BaseModel):
    """Why a payment is what it is."""

    payment_id: str
    status: PaymentStatus
    explained_at: datetime
    words: list[ExplanationSection] = Field(description="All of it, in words for people.")
    decision: Decision
    operations: list[ExplainedOperation] = Field(
        description="The charge or the authorization, then captures and voids, in their order."
    )
    has_more_operations: bool = Field(description="true if the history is longer than 500 rows: the rest is left out.")
    time: ExplainedTime = Field(description="The time of the payment itself, without refunds and deliveries.")
    refunds: list[ExplainedRefund] = Field(description="The first 50 refunds, the oldest first.")
    refunds_total: int
    deliveries: list[ExplainedDelivery] = Field(
        description="The first 50 deliveries, or fewer if they have many attempts."
    )
    has_more_deliveries: bool
    again: Again
    seed_key: str | None = Field(
        default=None, description="What the random numbers are drawn for, beside the seed. Present only for admins."
    )
