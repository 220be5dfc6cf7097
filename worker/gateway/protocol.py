"""What the worker may ask of a gateway and what it can be told. It never names the gateway that is behind it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from uuid import UUID

from shared.errors import PaymentsError
from shared.lifecycle import FailureCode, MethodType


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One payment as the gateway sees it; `payment_id` is the key under which asking again charges nothing twice."""

    payment_id: UUID
    identity: str  # what the payment is to its client: stays the same if the payment is made again from scratch
    method_type: MethodType
    scenario: FailureCode | None  # the failure that the test card or address names
    amount: int  # minor units
    currency: str
    gateway_try: int  # from 0: earlier answers that said nothing happened


@dataclass(frozen=True, slots=True)
class Approved:
    """The money moved. `details` has what the method has: authorization code, AVS and CVC results, payer id, fee."""

    gateway: str
    transaction_id: str
    details: dict[str, Any]
    outcome_rule: str  # what decided it


@dataclass(frozen=True, slots=True)
class Declined:
    """No money moved and, for this payment, none ever will. `failure_reason` is a sentence for people."""

    gateway: str
    failure_code: FailureCode
    failure_reason: str
    details: dict[str, Any]
    outcome_rule: str


type Answer = Approved | Declined


class GatewayUnavailable(PaymentsError):
    """The gateway could not be reached and nothing happened: the charge may be tried again."""

    failure_code: ClassVar = FailureCode.NETWORK_ERROR  # how a payment fails that runs out of tries

    def __init__(self, outcome_rule: str) -> None:
        super().__init__("the gateway could not be reached")
        self.outcome_rule = outcome_rule


class OutcomeUnknown(PaymentsError):
    """Nobody told us whether the money moved: ask again with the same key."""


class Gateway(Protocol):
    """Moves money, once per payment."""

    async def charge(self, request: ChargeRequest) -> Answer:
        """Charge the payment, or answer again what was decided when it was charged before.

        Raises GatewayUnavailable if nothing happened, OutcomeUnknown if it is not known what did.
        """
        ...

    async def close(self, request: ChargeRequest, failure_code: FailureCode = FailureCode.PROCESSING_ERROR) -> Answer:
        """What is on record for the payment; from now on nothing happens to it any more.

        A finished charge is answered as Approved. Everything else is Declined: as it is on record or, where nothing
        was decided yet, with `failure_code`. Raises OutcomeUnknown.
        """
        ...
