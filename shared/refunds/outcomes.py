"""What a claim of a refund ends with. Values only."""

from dataclasses import dataclass

from shared.payments.outcomes import GatewayAnswer, Release, Retry, Unsettled
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundHistoryReason
from shared.refunds.refund import Refund


@dataclass(frozen=True, slots=True)
class RefundWork:
    """A claimed refund, and its payment as it was then: all that the gateway needs."""

    refund: Refund
    payment: Payment


@dataclass(frozen=True, slots=True)
class RefundSettled:
    """The gateway's answer is final: the refund becomes COMPLETED or FAILED, for `reason`."""

    answer: GatewayAnswer
    reason: RefundHistoryReason


type RefundOutcome = RefundSettled | Unsettled | Retry | Release
