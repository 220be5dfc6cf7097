"""The verbs of clients, customers and gateways on payments, as rules of a state machine."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shared.broker.client import Queue
from shared.database.leases import FIRST_RELAY_AFTER_S, WorkItem
from shared.lifecycle import CANCELLED_AT_ONCE, ActionResult, PaymentOperation, PaymentStatus
from shared.payments.notifications import hasten
from shared.payments.requests import answer_action, cancel, capture
from shared.simulation.calls import Steering
from shared.simulation.scenarios import CHALLENGED, PENDING, Scenario, scenario_members
from tests.support import money_model as model
from tests.support.harness import APPROVED_AMOUNT, DECLINED_AMOUNT, NOW, Harness
from tests.support.rows import accepted, write

BY = "service:shop"

# What steered calls do, in their order: the money moves with the first one, or with the third.
LOST = ("timeout_charged", "timeout_not_charged", "approve")
NOT_CHARGED = ("timeout_not_charged", "timeout_not_charged", "timeout_charged")

pick = st.integers(0, 99)
picks = st.lists(pick, min_size=1, max_size=3)
parts = st.sampled_from([None, 1, 40, 60, APPROVED_AMOUNT])


def picked[T](items: Sequence[T], which: Sequence[int]) -> list[T]:
    """Counted from the newest: small numbers are drawn most, and long chains of steps need what came last."""
    return [items[-1 - number % len(items)] for number in which]


class ClientVerbs(RuleBasedStateMachine):
    """What clients, customers and gateways say, as rules; each is judged by the model."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.harness.empty()
        self.now = NOW
        self.payments: dict[UUID, model.Payment] = {}
        self.items: dict[Queue, list[WorkItem]] = {Queue.PROCESS: [], Queue.REFUND: []}

    def after(self, seconds: float) -> Any:
        return self.now + timedelta(seconds=seconds)

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
