"""What a gateway answers about a payment, and what a claim of a payment ends with. Values only."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.lifecycle import FailureCode, HistoryReason


@dataclass(frozen=True, slots=True)
class Approved:
    """The money moved.

    `details` has what the method has: authorization code, AVS and CVC results, payer id, fee. `outcome_rule` says what
    decided the outcome.
    """

    gateway: str
    transaction_id: str
    details: dict[str, Any]
    outcome_rule: str


@dataclass(frozen=True, slots=True)
class Declined:
    """No money moved and, for this payment, none ever will. `failure_reason` is a sentence for people.

    `gateway` and `details` are None if the payment failed before a gateway was asked to charge it.
    """

    gateway: str | None
    failure_code: FailureCode
    failure_reason: str
    details: dict[str, Any] | None
    outcome_rule: str


type GatewayAnswer = Approved | Declined


@dataclass(frozen=True, slots=True)
class Settled:
    """The gateway's answer is final: the payment becomes COMPLETED or FAILED, for `reason`."""

    answer: GatewayAnswer
    reason: HistoryReason


@dataclass(frozen=True, slots=True)
class Retry:
    """The gateway said that nothing happened: the payment is due again after `wait_s` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """The worker stops: another one may claim the payment at once."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """The order could not be checked: the payment is due again after `wait_s` seconds, the last time at `until`."""

    wait_s: float
    until: datetime


type ClaimOutcome = Settled | Retry | Postpone | Release
