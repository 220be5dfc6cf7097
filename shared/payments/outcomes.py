"""What a gateway answers about a payment, and what a claim of a payment ends with. Values only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.lifecycle import CaptureFailureCode, FailureCode, HistoryReason
from shared.refund_lifecycle import RefundFailureCode


@dataclass(frozen=True, slots=True)
class Approved:
    """The gateway did what it was asked to: the money moved, or is held.

    `details` has what the method has: authorization code, AVS and CVC results, payer id, fee. `outcome_rule` says what
    decided the outcome, and `remark` what else the gateway says of how it came to its answer.
    """

    gateway: str
    transaction_id: str
    details: dict[str, Any]
    outcome_rule: str
    remark: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """No money moved and, by this operation, none ever will. `failure_reason` is a sentence for people.

    `gateway` and `details` are None if the payment failed before a gateway was asked to charge it.
    """

    gateway: str | None
    failure_code: FailureCode | CaptureFailureCode | RefundFailureCode
    failure_reason: str
    details: dict[str, Any] | None
    outcome_rule: str
    remark: dict[str, Any] | None = None


type GatewayAnswer = Approved | Declined


@dataclass(frozen=True, slots=True)
class ActionRequired:
    """Nothing is decided: the customer must approve the payment first."""

    gateway: str
    remark: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The gateway accepted the operation, and settles it in about `settles_in_s` seconds."""

    gateway: str
    settles_in_s: float
    remark: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Voided:
    """The held funds were released: no money moves."""

    gateway: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The gateway's answer to the payment's operation is final, and moves the payment for `reason`."""

    answer: GatewayAnswer | Voided
    reason: HistoryReason


@dataclass(frozen=True, slots=True)
class Authorized:
    """The gateway holds the funds for `valid_s` seconds from now."""

    answer: Approved
    valid_s: float


@dataclass(frozen=True, slots=True)
class ActionNeeded:
    """The customer has `valid_s` seconds to approve the payment."""

    answer: ActionRequired
    valid_s: float


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The gateway settles later. If it does not notify, it is asked again after `ask_after_s` seconds."""

    answer: Pending
    ask_after_s: float


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing happened, or with `is_timeout` the answer was lost: the gateway is asked again after `wait_s` seconds."""

    wait_s: float
    is_timeout: bool = False
    remark: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The worker stops: another one may claim the payment at once."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """The order could not be checked: the payment is due again after `wait_s` seconds, the last time at `until`."""

    wait_s: float
    until: datetime


def remark_of(outcome: object) -> dict[str, Any] | None:
    """Return the gateway's remark in what a claim ended with; None if there is none."""
    remark: dict[str, Any] | None = getattr(getattr(outcome, "answer", outcome), "remark", None)
    return remark


# Remarks that a payment or a refund keeps at most: the latest.
REMARKS_MAX = 50


def with_remark(kept: list[dict[str, Any]] | None, outcome: object) -> list[dict[str, Any]] | None:
    """Return the remarks that are kept, with that of `outcome` unless it is there already."""
    remark = remark_of(outcome)
    if remark is None or remark in (kept or ()):
        return kept
    return [*(kept or ()), remark][-REMARKS_MAX:]


type ClaimOutcome = Settled | Authorized | ActionNeeded | Unsettled | Retry | Postpone | Release
