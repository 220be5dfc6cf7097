"""The verbs of workers on payments, beside those of clients, as rules of a state machine."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from shared.broker.client import Queue
from shared.lifecycle import ActionResult, FailureCode, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.outcomes import (
    ActionNeeded,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    Release,
    Retry,
    Settled,
    Unsettled,
    Voided,
)
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from tests.support import money_model as model
from tests.support.harness import APPROVED_AMOUNT, DECLINED_AMOUNT, Harness
from tests.support.money_client_verbs import ClientVerbs, pick, picked, picks
from tests.support.rows import claim
from worker.payments.operations import Operations, Refusal
from worker.rules import ChargeRules

LEASE_S = 30.0
VALID_S = 60.0
REPUBLISHED_AFTER_S = 30
RULES = ChargeRules(
    max_claims=10**6, gateway_tries_max=3, gateway_backoff_s=1, card_valid_s=VALID_S, action_valid_s=VALID_S
)
REFUSAL = Refusal(FailureCode.ORDER_NOT_PAYABLE, HistoryReason.ORDER_REFUSED)

put_offs = st.sampled_from([Retry(2.0), Release()])


class PaymentVerbs(ClientVerbs):
    """Every verb of payments as a rule; claims of any age are kept and used again."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        self.operations = Operations(harness.gateway, RULES)
        self.claims: list[Payment] = []
        self.answers: list[Record] = []

    @initialize()
    def begin_with_an_authorization_and_a_charge(self) -> None:
        """Else most runs end before there is one."""
        for is_manual in (True, False):
            self.accept(is_manual, APPROVED_AMOUNT, None)
            self.claim([0])
            self.ask(0, closes=False)
            self.settle([0])

    @precondition(lambda self: self.items[Queue.PROCESS])
    @rule(which=picks)
    def claim(self, which: list[int]) -> None:
        items = picked(self.items[Queue.PROCESS], which)
        answers = self.harness.write(lambda connection: claim(connection, self.now, items, lease_s=LEASE_S))
        for item, answer in zip(items, answers, strict=True):
            payment = self.payments[item.id]
            if payment.expires(item.lease_version, self.now):
                assert answer is None
                payment.move(PaymentStatus.FAILED, None)
            assert (answer is not None) == payment.may_be_claimed(item.lease_version, self.now)
            if answer is not None:
                payment.claim(self.after(LEASE_S))
                assert answer.due_for is payment.operation
                self.claims.append(answer)
                self.items[Queue.PROCESS].append(answer.work_item)

    @precondition(lambda self: self.claims)
    @rule(which=pick, closes=st.booleans())
    def ask(self, which: int, *, closes: bool) -> None:
        """Also with a claim that was lost long ago: its worker was only paused."""
        [claimed] = picked(self.claims, [which])
        outcome = self.harness.run(self.operations.ask(claimed, REFUSAL if closes else None))
        payment = self.payments[claimed.id]
        begins = claimed.due_for in {PaymentOperation.CHARGE, PaymentOperation.AUTHORIZE}
        is_approved_by_customer = claimed.action_result == ActionResult.APPROVED
        if begins and not closes and payment.is_undecided(is_approved=is_approved_by_customer, now=self.now):
            self._undecided(payment, outcome)
            self.answers.append(Record(claimed, outcome))
            return
        if begins and not closes and self._loses_answer(payment, claimed, outcome):
            return
        is_approved = payment.ask(
            claimed.due_for,
            claimed.operation_number,
            claimed.operation_amount,
            approves=payment.is_late or bool(payment.script) or claimed.amount != DECLINED_AMOUNT,
            closes=closes,
        )
        assert isinstance(outcome, Settled | Authorized)
        # What an old claim is told is never recorded.
        if payment.is_held(claimed.lease_version, claimed.sequence):
            assert isinstance(outcome.answer, Approved) == is_approved
            assert isinstance(outcome.answer, Voided) == (claimed.due_for is PaymentOperation.VOID)
        self.answers.append(Record(claimed, outcome))

    def _loses_answer(self, payment: model.Payment, claimed: Payment, outcome: ClaimOutcome | None) -> bool:
        """Whether the answer to a steered call is lost. What it does at the gateway is done; the last one is followed
        by an inquiry."""
        number = min(claimed.gateway_tries + 1, len(payment.script))
        if not payment.script or not payment.script[number - 1].startswith("timeout"):
            return False
        is_last = claimed.gateway_tries + 1 >= RULES.gateway_tries_max
        is_charged = payment.script[number - 1] == "timeout_charged"
        is_approved = False
        if is_charged or is_last:
            is_approved = payment.ask(claimed.due_for, None, None, approves=True, closes=not is_charged)
        if is_last:
            assert isinstance(outcome, Settled | Authorized)
            assert isinstance(outcome.answer, Approved) == is_approved
        else:
            assert isinstance(outcome, Retry)
            assert outcome.is_timeout
        self.answers.append(Record(claimed, outcome))
        return True

    def _undecided(self, payment: model.Payment, outcome: ClaimOutcome | None) -> None:
        if payment.is_challenged:
            assert isinstance(outcome, ActionNeeded)
            return
        assert isinstance(outcome, Unsettled)
        if payment.settles_at is None:
            payment.steps[0] = "pending", payment.amount
            payment.settles_at = self.after(outcome.answer.settles_in_s)
        assert outcome.answer.settles_in_s == (payment.settles_at - self.now).total_seconds()

    @precondition(lambda self: self.answers)
    @rule(which=picks)
    def settle(self, which: list[int]) -> None:
        items = {item.payment.work_item: item for item in picked(self.answers, which)}
        self._record(list(items.values()))

    @precondition(lambda self: self.claims)
    @rule(which=pick, outcome=put_offs)
    def put_off(self, which: int, outcome: ClaimOutcome) -> None:
        [claimed] = picked(self.claims, [which])
        self._record([Record(claimed, outcome)])

    def _record(self, items: Sequence[Record]) -> None:
        answers = self.harness.write(lambda connection: record(connection, self.now, items))
        for item, answer in zip(items, answers, strict=True):
            payment = self.payments[item.payment.id]
            assert (answer is not None) == payment.is_held(item.payment.lease_version, item.payment.sequence)
            if answer is not None:
                self._recorded(payment, item.outcome)

    def _recorded(self, payment: model.Payment, outcome: ClaimOutcome) -> None:
        match outcome:
            case ActionNeeded(_, valid_s):
                payment.move(PaymentStatus.REQUIRES_ACTION, self.after(valid_s))
                payment.action_expires_at = self.after(valid_s)
            case Unsettled(pending, ask_after_s):
                payment.gateway = pending.gateway
                payment.move(PaymentStatus.PROCESSING, self.after(ask_after_s))
                payment.awaits_answer = True
            case Authorized():
                payment.hold(self.after(VALID_S))
            case Settled(Voided()):
                payment.move(PaymentStatus.CANCELLED, None)
                payment.capture_before = None
            case Settled(Approved()) if payment.operation is PaymentOperation.CAPTURE:
                payment.move(PaymentStatus.COMPLETED, None)
                payment.balance = payment.amount, payment.operation_amount or payment.amount, 0, 0
                payment.capture_before = None
            case Settled(Approved()):
                payment.move(PaymentStatus.COMPLETED, None)
            case Settled(Declined()) if payment.operation is PaymentOperation.CAPTURE:
                assert payment.capture_before is not None
                payment.hold(payment.capture_before)
            case Settled(Declined()):
                payment.move(PaymentStatus.FAILED, None)
            case Retry(wait_s):
                payment.due_at = self.after(wait_s)
            case Release():
                payment.due_at = self.now
            case _:
                raise AssertionError(outcome)
