"""A call to the simulated gateway: one try of one operation, with all that decides what it does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.database.leases import FIRST_RELAY_AFTER_S
from shared.lifecycle import CaptureFailureCode, FailureCode, MethodType
from shared.refund_lifecycle import RefundFailureCode
from shared.simulation.scenarios import Scenario

# Entries of `outcomes` at most.
OUTCOMES_MAX = 20


class CallOperation(StrEnum):
    """The operations whose calls can be steered. A void cannot: it is tried until the gateway answers."""

    CHARGE = "charge"
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    REFUND = "refund"


class CallOutcome(StrEnum):
    """What a call can be made to do, beside failing with a failure code of its operation."""

    APPROVE = "approve"
    """The gateway does what it is asked to."""
    NETWORK_ERROR = "network_error"
    """The gateway cannot be reached, and nothing happens."""
    TIMEOUT_CHARGED = "timeout_charged"
    """The gateway does what it is asked to, and its answer is lost."""
    TIMEOUT_NOT_CHARGED = "timeout_not_charged"
    """Nothing happens, and the answer is lost."""
    PENDING = "pending"
    """The gateway accepts the operation, settles it later, and notifies of that."""
    PENDING_LOST = "pending_lost"
    """The gateway accepts the operation and settles it later; no notification comes."""


LOSES_ANSWER = (CallOutcome.TIMEOUT_CHARGED, CallOutcome.TIMEOUT_NOT_CHARGED)
SETTLES_LATE = (CallOutcome.PENDING, CallOutcome.PENDING_LOST)

type Failure = FailureCode | CaptureFailureCode | RefundFailureCode

_OF_ORDERS = frozenset(code for code in FailureCode if code.startswith("order_"))
_CHARGE_FAILURES = tuple(code for code in FailureCode if code not in {*_OF_ORDERS, FailureCode.NETWORK_ERROR})
FAILURES: dict[CallOperation, tuple[Failure, ...]] = {
    CallOperation.CHARGE: _CHARGE_FAILURES,
    CallOperation.AUTHORIZE: _CHARGE_FAILURES,
    CallOperation.CAPTURE: (CaptureFailureCode.CAPTURE_DECLINED,),
    CallOperation.REFUND: (RefundFailureCode.REFUND_DECLINED,),
}


def outcomes_of(operation: CallOperation) -> tuple[str, ...]:
    """Return what a call of this operation can be made to do, as words."""
    return (*CallOutcome, *FAILURES[operation])


def failure_of(operation: CallOperation, outcome: str) -> Failure | None:
    """Return the failure code that `outcome` is; None if it is none of this operation."""
    return next((code for code in FAILURES[operation] if code == outcome), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What a request wants of the calls of its operation.

    Each entry of `outcomes` is what the next call does, and the last one repeats; without entries the rules, the test
    value, the amount and the success rate decide. `delay_ms` is how long each call takes; None = as drawn. `pending_ms`
    is how long the operation waits before a worker takes it up.
    """

    outcomes: tuple[str, ...] = ()
    delay_ms: int | None = None
    pending_ms: int | None = None

    @property
    def first_due_s(self) -> float:
        """The seconds until the operation is due: then a worker takes it up, if it has not been published before."""
        return self.pending_ms / 1000 if self.pending_ms else FIRST_RELAY_AFTER_S

    @property
    def stored(self) -> dict[str, Any] | None:
        """What a column keeps; None if nothing was asked for."""
        return None if self == NOT_STEERED else self.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return what was asked for, as it is stored and shown."""
        return {"outcomes": list(self.outcomes), "delay_ms": self.delay_ms, "pending_ms": self.pending_ms}


def simulation_json(
    steering: Mapping[str, Any] | None, simulated: list[dict[str, Any]] | None
) -> dict[str, Any] | None:
    """Return what was asked for and what was steered, as clients see it in a payment or a refund; None = nothing."""
    if steering is None and not simulated:
        return None
    return {**(steering or NOT_STEERED.to_json()), "applied": simulated or []}


NOT_STEERED = Steering()


def read_steering(stored: Mapping[str, Any] | None) -> Steering:
    """Return what `Steering.to_json` has stored."""
    if stored is None:
        return NOT_STEERED
    return Steering(outcomes=tuple(stored["outcomes"]), delay_ms=stored["delay_ms"], pending_ms=stored["pending_ms"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One try of one operation on a payment, as the simulated gateway sees it.

    The outcome and the delays are random numbers drawn for `seed_key`. `scenario` is the outcome that a test number, a
    test address or a ready-made method names; None if the payment has none. `number` counts the calls of the operation
    from 1. `gateway_try` counts, from 0, the tries since the operation began or was left open. `amount` is that of the
    operation, in minor units. With `can_redirect` the customer can be sent to a page, to approve the payment;
    `is_approved` says that this has happened. `may_be_repeated` says that an earlier claim may have made the same call,
    or one before it. `target_id` is the id of the refund; without one it is the payment's.
    """

    payment_id: UUID
    seed_key: str
    method_type: MethodType
    scenario: Scenario | None
    amount: int
    currency: str
    operation: CallOperation = CallOperation.CHARGE
    number: int = 1
    gateway_try: int = 0
    can_redirect: bool = False
    is_approved: bool = False
    may_be_repeated: bool = False
    steering: Steering = NOT_STEERED
    refund_id: UUID | None = None
    operation_number: int | None = None
    user_id: str = ""
    order_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    brand: str | None = None
    last4: str | None = None
    # The gateway that has the payment; None = that is drawn with the first call.
    gateway: str | None = None

    @property
    def asks_customer(self) -> bool:
        """The method itself asks for the customer's approval, and it can be had."""
        is_challenged = self.scenario is not None and self.scenario.is_challenged
        asks = is_challenged or self.method_type is MethodType.PAYPAL
        return asks and self.can_redirect and not self.is_approved
