"""The verbs of payments that are authorized, captured, voided or charged, as rules of a state machine."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from shared.broker.client import Queue
from shared.database.leases import FIRST_RELAY_AFTER_S, WorkItem
from shared.lifecycle import (
    CANCELLED_AT_ONCE,
    ActionResult,
    FailureCode,
    HistoryReason,
    PaymentOperation,
    PaymentStatus,
)
from shared.payments.notifications import hasten
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
from shared.payments.requests import answer_action, cancel, capture
from shared.simulation.calls import Steering
from shared.simulation.scenarios import CHALLENGED, PENDING, Scenario, scenario_members
from tests.support import money_model as model
from tests.support.harness import APPROVED_AMOUNT, DECLINED_AMOUNT, NOW, Harness
from tests.support.rows import accepted, claim, write
from worker.payments.operations import Operations, Refusal
from worker.rules import ChargeRules

LEASE_S = 30.0
VALID_S = 60.0
REPUBLISHED_AFTER_S = 30
RULES = ChargeRules(
    max_claims=10**6, gateway_tries_max=3, gateway_backoff_s=1, card_valid_s=VALID_S, action_valid_s=VALID_S
)
REFUSAL = Refusal(FailureCode.ORDER_NOT_PAYABLE, HistoryReason.ORDER_REFUSED)
BY = "service:shop"

# What steered calls do, in their order: the money moves with the first one, or with the third.
LOST = ("timeout_charged", "timeout_not_charged", "approve")
NOT_CHARGED = ("timeout_not_charged", "timeout_not_charged", "timeout_charged")

pick = st.integers(0, 99)
picks = st.lists(pick, min_size=1, max_size=3)
parts = st.sampled_from([None, 1, 40, 60, APPROVED_AMOUNT])
put_offs = st.sampled_from([Retry(2.0), Release()])


def picked[T](items: Sequence[T], which: Sequence[int]) -> list[T]:
    """Counted from the newest: small numbers are drawn most, and long chains of steps need what came last."""
    return [items[-1 - number % len(items)] for number in which]


class PaymentVerbs(RuleBasedStateMachine):
    """Every verb of payments as a rule; claims of any age are kept and used again."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.harness.empty()
        self.operations = Operations(harness.gateway, RULES)
        self.now = NOW
        self.payments: dict[UUID, model.Payment] = {}
        self.items: dict[Queue, list[WorkItem]] = {Queue.PROCESS: [], Queue.REFUND: []}
        self.claims: list[Payment] = []
        self.answers: list[Record] = []

    def after(self, seconds: float) -> Any:
        return self.now + timedelta(seconds=seconds)

    @initialize()
    def begin_with_an_authorization_and_a_charge(self) -> None:
        """Else most runs end before there is one."""
        for is_manual in (True, False):
            self.accept(is_manual, APPROVED_AMOUNT, None)
            self.claim([0])
            self.ask(0, closes=False)
            self.settle([0])

    # -- clients

    @rule(
        is_manual=st.booleans(),
        amount=st.sampled_from([APPROVED_AMOUNT, APPROVED_AMOUNT, DECLINED_AMOUNT]),
        scenario=st.sampled_from([None, CHALLENGED, PENDING]),
        script=st.sampled_from([(), (), LOST, NOT_CHARGED]),
    )
    def accept(self, is_manual: bool, amount: int, scenario: Scenario | None, script: tuple[str, ...] = ()) -> None:
        """Of late and of steered ones every amount is approved."""
        if script:
            scenario = None
        is_named = scenario is not None or bool(script)
        operation = PaymentOperation.AUTHORIZE if is_manual else PaymentOperation.CHARGE if is_named else None
        payment = accepted(self.now, amount=amount, operation=operation)
        payment = replace(
            payment,
            steering=Steering(outcomes=script).stored,
            method={**payment.method, **scenario_members(scenario)},
            return_url="https://shop.example/paid" if scenario is CHALLENGED else None,
        )
        self.items[Queue.PROCESS] += self.harness.run(write(self.harness.database, payment))
        self.payments[payment.id] = model.Payment(
            amount,
            payment.due_at,
            payment.due_for,
            is_challenged=scenario is CHALLENGED,
            is_late=scenario is PENDING,
            script=script,
        )

    @precondition(lambda self: any(payment.is_asking for payment in self.payments.values()))
    @rule(which=pick, result=st.sampled_from([ActionResult.APPROVED, ActionResult.APPROVED, ActionResult.DECLINED]))
    def answer_action(self, which: int, result: ActionResult) -> None:
        """Mostly of one that asks; sometimes of another one."""
        asking = [payment_id for payment_id, payment in self.payments.items() if payment.is_asking]
        [payment_id] = picked(asking if which % 5 else list(self.payments), [which])
        payment = self.payments[payment_id]
        answer = self.harness.write(
            lambda connection: answer_action(connection, payment_id, result=result, by="customer", now=self.now)
        )
        assert answer is not None
        assert answer.is_moved == payment.may_be_approved(self.now)
        if answer.is_moved and result is ActionResult.APPROVED:
            payment.approve(self.now)
            self.items[Queue.PROCESS] += answer.work
        elif answer.is_moved:
            payment.decline()

    @precondition(lambda self: self.payments)
    @rule(which=picks, gateway=st.sampled_from(["stripe_mock", "square_mock"]))
    def notify(self, which: list[int], gateway: str) -> None:
        """A gateway says that it has settled something: it may be wrong, late, or another gateway."""
        ids = set(picked(list(self.payments), which))
        soon = self.after(FIRST_RELAY_AFTER_S)
        hastened = self.harness.write(lambda connection: hasten(connection, ids, gateway=gateway, now=self.now))
        waiting = {
            payment_id
            for payment_id in ids
            if (payment := self.payments[payment_id]).awaits_answer
            and payment.gateway == gateway
            and payment.due_at
            and payment.due_at > soon
        }
        assert {item.id for item in hastened} == waiting
        for item in hastened:
            self.payments[item.id].due_at = soon
        self.items[Queue.PROCESS] += hastened

    @precondition(lambda self: self.payments)
    @rule(which=pick, amount=parts)
    def request_capture(self, which: int, amount: int | None) -> None:
        [payment_id] = picked(list(self.payments), [which])
        payment = self.payments[payment_id]
        part = None if amount is None else min(amount, payment.amount)
        answer = self.harness.write(
            lambda connection: capture(connection, payment_id, amount=part, by=BY, now=self.now)
        )
        assert answer is not None
        is_live = payment.capture_before is not None and payment.capture_before > self.now
        assert answer.is_moved == (payment.status is PaymentStatus.AUTHORIZED and is_live)
        if answer.is_moved:
            payment.request(PaymentOperation.CAPTURE, part or payment.amount, self.now)
            self.items[Queue.PROCESS] += answer.work

    @precondition(lambda self: self.payments)
    @rule(which=pick)
    def request_cancel(self, which: int) -> None:
        [payment_id] = picked(list(self.payments), [which])
        payment = self.payments[payment_id]
        answer = self.harness.write(lambda connection: cancel(connection, payment_id, by=BY, now=self.now))
        assert answer is not None
        assert answer.is_moved == (payment.status in {*CANCELLED_AT_ONCE, PaymentStatus.AUTHORIZED})
        if payment.status is PaymentStatus.AUTHORIZED:
            payment.request(PaymentOperation.VOID, None, self.now)
            self.items[Queue.PROCESS] += answer.work
        elif answer.is_moved:
            payment.move(PaymentStatus.CANCELLED, None)

    # -- workers, on payments

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
