"""What payments, their amounts and refunds, and the gateway's ledger look like after each verb. No database here."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from shared.database.leases import FIRST_RELAY_AFTER_S
from shared.lifecycle import ActionResult, PaymentOperation, PaymentStatus
from shared.refund_lifecycle import RefundStatus

UNSETTLED = {RefundStatus.PENDING, RefundStatus.PROCESSING}


@dataclass(slots=True)
class Refund:
    """A row of `refunds`."""

    payment_id: UUID
    amount: int
    # The payment's sequence at the request.
    number: int
    due_at: datetime | None
    status: RefundStatus = RefundStatus.PENDING
    sequence: int = 1
    lease_version: int = 0

    @property
    def columns(self) -> tuple[object, ...]:
        return self.status, self.amount, self.number, self.sequence, self.lease_version, self.due_at

    def may_be_claimed(self, lease_version: int) -> bool:
        return lease_version == self.lease_version and self.status in UNSETTLED

    def is_held(self, lease_version: int) -> bool:
        return lease_version == self.lease_version and self.status is RefundStatus.PROCESSING

    def claim(self, until: datetime) -> None:
        self.status, self.due_at = RefundStatus.PROCESSING, until
        self.lease_version += 1
        self.sequence += 1

    def end(self, status: RefundStatus) -> None:
        self.status, self.due_at = status, None
        self.sequence += 1


@dataclass(slots=True)
class Payment:
    """A payment's row, its balance, and what the gateway's ledger has of it by step."""

    amount: int
    due_at: datetime | None
    operation: PaymentOperation
    status: PaymentStatus = PaymentStatus.PENDING
    sequence: int = 1
    lease_version: int = 0
    operation_amount: int | None = None
    operation_number: int | None = None
    capture_before: datetime | None = None
    # Authorized, captured, refunded and reserved; None = there is no row.
    balance: tuple[int, int, int, int] | None = None
    steps: dict[int, tuple[str, int]] = field(default_factory=dict)
    # The customer must approve it first, or the gateway settles it late.
    is_challenged: bool = False
    is_late: bool = False
    # What its calls do, if it is steered.
    script: tuple[str, ...] = ()
    action_expires_at: datetime | None = None
    action_result: ActionResult | None = None
    # When the gateway settles what is pending, and whether the payment waits for that.
    settles_at: datetime | None = None
    awaits_answer: bool = False
    gateway: str | None = None

    @property
    def columns(self) -> tuple[object, ...]:
        is_named = self.is_challenged or self.is_late or bool(self.script)
        is_plain = self.operation is PaymentOperation.CHARGE and not is_named
        return (
            self.status,
            self.sequence,
            self.lease_version,
            self.due_at,
            None if is_plain else self.operation,
            self.capture_before,
            self.action_expires_at,
            self.action_result,
        )

    @property
    def is_ended_at_the_gateway(self) -> bool:
        """It was captured or voided."""
        return any(kind in {"capture", "void"} for kind, _ in self.steps.values())

    def may_be_claimed(self, lease_version: int, now: datetime) -> bool:
        is_over = self.status is PaymentStatus.AUTHORIZED and (self.capture_before or now) <= now
        is_in_progress = self.status in {PaymentStatus.PENDING, PaymentStatus.PROCESSING}
        return lease_version == self.lease_version and (is_in_progress or is_over)

    def expires(self, lease_version: int, now: datetime) -> bool:
        """A claim finds that the customer did not answer in time."""
        return lease_version == self.lease_version and self.is_asking and not self.may_be_approved(now)

    @property
    def is_asking(self) -> bool:
        return self.status is PaymentStatus.REQUIRES_ACTION

    def may_be_approved(self, now: datetime) -> bool:
        return self.is_asking and self.action_expires_at is not None and now < self.action_expires_at

    def is_held(self, lease_version: int, sequence: int) -> bool:
        """The claim with this lease version, which moved the payment to this sequence, is still valid."""
        is_latest = (lease_version, sequence) == (self.lease_version, self.sequence)
        return is_latest and self.status is PaymentStatus.PROCESSING

    def claim(self, until: datetime) -> None:
        self.move(PaymentStatus.PROCESSING, until)
        self.lease_version += 1

    def move(self, status: PaymentStatus, due_at: datetime | None) -> None:
        self.status, self.due_at = status, due_at
        self.sequence += 1
        self.awaits_answer = False

    def approve(self, now: datetime) -> None:
        """The customer approved it."""
        self.move(PaymentStatus.PROCESSING, now + timedelta(seconds=FIRST_RELAY_AFTER_S))
        self.action_result = ActionResult.APPROVED

    def decline(self) -> None:
        """The customer declined it."""
        self.move(PaymentStatus.FAILED, None)
        self.action_result = ActionResult.DECLINED

    def is_undecided(self, *, is_approved: bool, now: datetime) -> bool:
        """The gateway, asked for a charge or authorization, waits for the customer or settles later."""
        if 1 in self.steps:
            return False
        if self.is_challenged and not is_approved:
            return True
        return self.is_late and (self.settles_at is None or now < self.settles_at)

    def request(self, operation: PaymentOperation, amount: int | None, now: datetime) -> None:
        """A client asked for a capture or a void."""
        self.move(PaymentStatus.PROCESSING, now + timedelta(seconds=FIRST_RELAY_AFTER_S))
        self.operation, self.operation_amount, self.operation_number = operation, amount, self.sequence

    def hold(self, until: datetime) -> None:
        """It waits for a capture, until its authorization is over."""
        self.move(PaymentStatus.AUTHORIZED, until)
        self.capture_before, self.balance = until, (self.amount, 0, 0, 0)
        self.operation, self.operation_amount = PaymentOperation.VOID, None

    def ask(
        self, operation: PaymentOperation, number: int | None, amount: int | None, *, approves: bool, closes: bool
    ) -> bool:
        """The gateway is asked for an operation of any claim; return whether it answers that money moved or is held."""
        match operation:
            case PaymentOperation.CHARGE | PaymentOperation.AUTHORIZE:
                kind = "authorize" if approves and not closes else "decline"
                is_held = self.steps.setdefault(1, (kind, self.amount))[0] == "authorize"
                if is_held and operation is PaymentOperation.CHARGE:
                    self.steps.setdefault(2, ("void" if closes else "capture", self.amount))
                    return self.steps[2][0] == "capture"
                return is_held
            case PaymentOperation.CAPTURE:
                assert number is not None
                if number not in self.steps and (closes or not self.is_ended_at_the_gateway):
                    self.steps[number] = ("capture_decline" if closes else "capture", amount or self.amount)
                return self.steps.get(number, ("", 0))[0] == "capture"
            case PaymentOperation.VOID:
                if not self.is_ended_at_the_gateway:
                    self.steps[2] = ("void", self.amount)
                return False

    def ask_to_refund(self, refund: Refund, *, closes: bool) -> bool:
        """The gateway is asked for a refund of any claim; return whether it is paid."""
        kind = "refund_decline" if closes else "refund"
        return self.steps.setdefault(refund.number, (kind, refund.amount))[0] == "refund"

    # -- refunds

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        return self.balance or (self.amount, self.amount, 0, 0)

    @property
    def is_refundable(self) -> bool:
        return self.status in {PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED}

    @property
    def refundable(self) -> int:
        _authorized, captured, refunded, reserved = self.amounts
        return captured - refunded - reserved

    def reserve(self, amount: int) -> None:
        authorized, captured, refunded, reserved = self.amounts
        self.sequence += 1
        self.balance = authorized, captured, refunded, reserved + amount

    def end_refund(self, amount: int, *, is_paid: bool) -> None:
        authorized, captured, refunded, reserved = self.amounts
        self.sequence += 1
        refunded += amount if is_paid else 0
        self.balance = authorized, captured, refunded, reserved - amount
        if is_paid:
            self.status = PaymentStatus.REFUNDED if refunded == captured else PaymentStatus.PARTIALLY_REFUNDED
