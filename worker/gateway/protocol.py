"""What the worker may ask of a payment gateway, and the errors that a gateway may raise. It names no gateway."""

from typing import ClassVar, Protocol

from shared.errors import PaymentsError
from shared.lifecycle import FailureCode
from shared.payments.outcomes import GatewayAnswer
from shared.payments.payment import Payment


class GatewayUnavailable(PaymentsError):
    """The gateway could not be reached and nothing happened: the charge may be tried again."""

    # The failure code of a payment that runs out of tries.
    failure_code: ClassVar = FailureCode.NETWORK_ERROR

    def __init__(self, outcome_rule: str) -> None:
        super().__init__("the gateway could not be reached")
        self.outcome_rule = outcome_rule


class OutcomeUnknown(PaymentsError):
    """It is not known whether the money moved: ask again for the same payment."""


class Gateway(Protocol):
    """Moves money, at most once per payment. The payment's id is the idempotency key of every call."""

    async def charge(self, payment: Payment) -> GatewayAnswer:
        """Charge the payment, or return again what an earlier call decided.

        Raises GatewayUnavailable if nothing happened, OutcomeUnknown if it is not known what did.
        """
        ...

    async def void_or_fetch(
        self, payment: Payment, failure_code: FailureCode = FailureCode.PROCESSING_ERROR
    ) -> GatewayAnswer:
        """Void what is not finished, and return what the payment ended with; nothing happens to it afterwards.

        Return Approved for a finished charge. Everything else is Declined: as an earlier call declined it or, if none
        did, with `failure_code`. Raises OutcomeUnknown.
        """
        ...
