"""What the worker may ask of a payment gateway, and the errors that a gateway may raise. It names no gateway."""

from typing import Any, ClassVar, Protocol

from shared.errors import PaymentsError
from shared.lifecycle import CaptureFailureCode, FailureCode
from shared.payments.outcomes import ActionRequired, Approved, GatewayAnswer, Pending, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund


class NoAnswer(PaymentsError):
    """The gateway gave no answer: the operation may be tried again, under the same key.

    `outcome_rule` and `remark` say of that what an answer would say.
    """

    # The failure code of a payment that runs out of tries.
    failure_code: ClassVar = FailureCode.NETWORK_ERROR
    message: ClassVar[str]

    def __init__(self, outcome_rule: str, remark: dict[str, Any] | None = None) -> None:
        super().__init__(self.message)
        self.outcome_rule = outcome_rule
        self.remark = remark


class GatewayUnavailable(NoAnswer):
    """The gateway could not be reached, and nothing happened."""

    message = "the gateway could not be reached"


class GatewayTimedOut(NoAnswer):
    """The answer of the gateway was lost: it is not known what happened, until the gateway is asked again."""

    message = "the answer of the gateway was lost"


class OutcomeUnknown(PaymentsError):
    """It is not known whether the money moved: the same call is to be made again, as soon as possible."""


type ChargeAnswer = GatewayAnswer | ActionRequired | Pending


class Gateway(Protocol):
    """Moves money, each operation at most once.

    The idempotency key of a charge, an authorization and a void is the payment's id, that of a capture the payment's id
    and `operation_number`, and that of a refund the payment's id and the refund's `number`. A call that finds its
    operation settled answers again what an earlier call decided. One that is Pending is asked for again later.

    Every operation raises GatewayUnavailable if nothing happened, GatewayTimedOut if the answer was lost, and
    OutcomeUnknown if the same call is to be repeated at once. The inquiries, which end in `_or_fetch`, raise only
    OutcomeUnknown; after one of them nothing happens to the operation any more.
    """

    async def charge(self, payment: Payment) -> ChargeAnswer:
        """Authorize the amount and capture it at once.

        Return ActionRequired if the customer must approve the payment first: nothing happens before that.
        """
        ...

    async def authorize(self, payment: Payment) -> ChargeAnswer:
        """Hold the amount, to be captured or voided later; ActionRequired as for a charge."""
        ...

    async def void_or_fetch(
        self, payment: Payment, failure_code: FailureCode = FailureCode.PROCESSING_ERROR
    ) -> GatewayAnswer:
        """Void what is not finished of a charge or an authorization, and return what it ended with.

        Return Approved for a finished one. Everything else is Declined: as an earlier call declined it or, if none did,
        with `failure_code`.
        """
        ...

    async def capture(self, payment: Payment) -> GatewayAnswer | Pending:
        """Capture `operation_amount` of what is held, and release the rest; return the authorization as Approved.

        Return Declined if the gateway refuses: the funds are still held.
        """
        ...

    async def close_capture_or_fetch(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode
    ) -> GatewayAnswer:
        """Refuse the capture with `failure_code` unless an earlier call decided it, and return what it ended with."""
        ...

    async def void(self, payment: Payment) -> Voided | Approved:
        """Release what is held. Return Approved if it was captured before: then nothing is released."""
        ...

    async def refund(self, payment: Payment, refund: Refund) -> GatewayAnswer | Pending:
        """Pay the refund's amount back."""
        ...

    async def close_refund_or_fetch(
        self, payment: Payment, refund: Refund, failure_code: RefundFailureCode
    ) -> GatewayAnswer:
        """Refuse the refund with `failure_code` unless an earlier call decided it, and return what it ended with."""
        ...
