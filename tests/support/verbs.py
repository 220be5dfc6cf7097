"""The verbs in any order, with work items of any age, beside a simple model of them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.database.leases import WorkItem, give_back, take_due
from shared.database.tables import deliveries, payments
from shared.delivery_lifecycle import DeliveryStatus
from shared.errors import DeliveryInProgress, IdempotencyKeyReused, OrderAlreadyPaid, PaymentInProgress, Refused
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.accept import Accepted, accept
from shared.payments.intent import Intent
from shared.payments.outcomes import (
    ActionNeeded,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    Postpone,
    Release,
    Retry,
    Settled,
    Unsettled,
)
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from shared.payments.requests import cancel
from shared.webhooks.attempts import record_attempts
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries, release
from shared.webhooks.fan_out import EmittedDeliveries
from shared.webhooks.resend import resend
from tests.support import model
from tests.support.drawn_steps import ATTEMPTS, intents, pick, picks
from tests.support.harness import (
    APPROVED_AMOUNT,
    DECLINED_AMOUNT,
    NOW,
    RULES,
    Harness,
    attempts_logged,
    moving_columns,
    new_attempt,
    new_intent,
)
from tests.support.rows import assert_sound, claim

LEASE_S = 30.0


class Verbs(RuleBasedStateMachine):
    """Every verb as a rule; work items and claims of any age are kept and used again."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.harness.empty()
        self.model = model.Model(NOW)
        self.items: list[WorkItem] = []
        self.claims: list[Payment] = []
        self.answers: list[Record] = []
        self.delivery_items: list[WorkItem] = []
        self.delivery_claims: list[ClaimedDelivery] = []

    @initialize()
    def begin_with_a_delivery(self) -> None:
        """Else most runs end before there is one."""
        self.accept([("A", None, APPROVED_AMOUNT)])
        self.cancel(0)

    # -- clients

    @rule(drawn=intents)
    def accept(self, drawn: list[tuple[str, str | None, int]]) -> None:
        batch = [new_intent(*each) for each in drawn]
        answers = self.harness.write(lambda connection: accept(connection, self.model.now, batch, rules=RULES))
        for intent, answer in zip(batch, answers, strict=True):
            expected = self._expected(intent)
            if isinstance(expected, Refused):
                assert (type(answer), vars(answer)) == (type(expected), vars(expected))
                continue
            assert isinstance(answer, Accepted)
            assert (answer.payment.id, answer.is_replay) == (expected, expected != intent.id)
            if not answer.is_replay:
                self.items.append(answer.payment.work_item)

    def _expected(self, intent: Intent) -> UUID | Refused:
        """The payment of the intent, which the model then knows, or why there is none."""
        key = intent.idempotency
        if key is not None and key.key in self.model.keys:
            fingerprint, payment_id = self.model.keys[key.key]
            return payment_id if fingerprint == key.fingerprint else IdempotencyKeyReused("")
        if live := self.model.live_payment(intent.order_id):
            payment_id, payment = live
            is_paid = payment.status == PaymentStatus.COMPLETED
            return OrderAlreadyPaid(payment_id) if is_paid else PaymentInProgress(payment_id)
        self.model.accept(intent.id, intent.order_id)
        if key is not None:
            self.model.keys[key.key] = key.fingerprint, intent.id
        return intent.id

    @precondition(lambda self: self.model.payments)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        [payment_id] = _picked(list(self.model.payments), [which])
        answer = self.harness.write(lambda connection: cancel(connection, payment_id, by="user:1", now=self.model.now))
        assert answer is not None
        payment = self.model.payments[payment_id]
        assert answer.is_moved == (payment.status == PaymentStatus.PENDING)
        if answer.is_moved:
            payment.end(PaymentStatus.CANCELLED)
            self._emit(EmittedDeliveries(tuple(answer.deliveries)))

    # -- workers

    @precondition(lambda self: self.items)
    @rule(which=picks)
    def claim(self, which: list[int]) -> None:
        items = _picked(self.items, which)
        answers = self.harness.write(lambda connection: claim(connection, self.model.now, items, lease_s=LEASE_S))
        for item, answer in zip(items, answers, strict=True):
            payment = self.model.payments[item.id]
            assert (answer is not None) == payment.may_be_claimed(item.lease_version)
            if answer is not None:
                payment.claim(self.model.after(LEASE_S))
                self.claims.append(answer)
                self.items.append(answer.work_item)

    @precondition(lambda self: self.claims)
    @rule(which=pick, voids=st.booleans())
    def ask_the_gateway(self, which: int, voids: bool) -> None:
        """Also with a claim that was lost long ago: its worker was only paused."""
        [claimed] = _picked(self.claims, [which])
        gateway = self.harness.gateway
        answer = self.harness.run(gateway.void_or_fetch(claimed) if voids else gateway.charge(claimed))
        assert isinstance(answer, Approved | Declined)
        payment = self.model.payments[claimed.id]
        if payment.is_charged is None:
            payment.is_charged = not voids and claimed.amount != DECLINED_AMOUNT
        assert isinstance(answer, Approved) == payment.is_charged
        reason = HistoryReason.GATEWAY_APPROVED if payment.is_charged else HistoryReason.GATEWAY_DECLINED
        self.answers.append(Record(claimed, Settled(answer, reason)))

    @precondition(lambda self: self.answers)
    @rule(which=picks, sends_at_once=st.booleans())
    def settle(self, which: list[int], *, sends_at_once: bool) -> None:
        items = {item.payment.work_item: item for item in _picked(self.answers, which)}
        self._record(list(items.values()), lease_for_s=LEASE_S if sends_at_once else None)

    @precondition(lambda self: self.claims)
    @rule(which=pick, outcome=st.sampled_from([Retry(2.0), Release(), Postpone(1.0, NOW + timedelta(seconds=60))]))
    def put_off(self, which: int, outcome: ClaimOutcome) -> None:
        [claimed] = _picked(self.claims, [which])
        self._record([Record(claimed, outcome)])

    def _record(self, items: Sequence[Record], *, lease_for_s: float | None = None) -> None:
        answers = self.harness.write(
            lambda connection: record(connection, self.model.now, items, lease_deliveries_for_s=lease_for_s)
        )
        for item, answer in zip(items, answers, strict=True):
            payment = self.model.payments[item.payment.id]
            assert (answer is not None) == payment.is_held(item.payment.lease_version)
            if answer is None:
                continue
            payment.gateway_tries = item.payment.gateway_tries + isinstance(item.outcome, Retry)
            match item.outcome:
                case Settled(gateway_answer):
                    is_approved = isinstance(gateway_answer, Approved)
                    payment.end(PaymentStatus.COMPLETED if is_approved else PaymentStatus.FAILED)
                    self._emit(answer.deliveries)
                case Retry(wait_s):
                    payment.due_at = self.model.after(wait_s)
                case Postpone(wait_s, until):
                    payment.due_at = max(self.model.now, min(self.model.after(wait_s), until))
                case Release():
                    payment.due_at = self.model.now
                case Authorized() | ActionNeeded() | Unsettled():
                    raise AssertionError("the model has plain charges only")

    def _emit(self, emitted: EmittedDeliveries) -> None:
        items = [*emitted.to_publish, *(delivery.work_item for delivery in emitted.leased)]
        self.model.emit(items, leased_for_s=LEASE_S if emitted.leased else None)
        self.delivery_items += items
        self.delivery_claims += emitted.leased

    # -- the relay, and time

    @rule(limit=st.integers(1, 3))
    def relay_payments(self, limit: int) -> None:
        take = lambda connection: take_due(connection, payments, now=self.model.now, limit=limit)  # noqa: E731
        taken = list(self.harness.write(take))
        self.model.take(self.model.payments, taken, limit)
        self.items += taken

    @rule(limit=st.integers(1, 3))
    def relay_deliveries(self, limit: int) -> None:
        take = lambda connection: take_due(connection, deliveries, now=self.model.now, limit=limit)  # noqa: E731
        taken = list(self.harness.write(take))
        self.model.take(self.model.deliveries, taken, limit)
        self.delivery_items += taken

    @precondition(lambda self: self.items)
    @rule(which=picks)
    def give_payments_back(self, which: list[int]) -> None:
        items = _picked(self.items, which)
        since, now = dict.fromkeys(items, self.model.now), self.model.now
        self.harness.write(lambda connection: give_back(connection, payments, since, taken_at=now))
        self.model.give_back(self.model.payments, items)

    @precondition(lambda self: self.delivery_items)
    @rule(which=picks)
    def give_deliveries_back(self, which: list[int]) -> None:
        items = _picked(self.delivery_items, which)
        since, now = dict.fromkeys(items, self.model.now), self.model.now
        self.harness.write(lambda connection: give_back(connection, deliveries, since, taken_at=now))
        self.model.give_back(self.model.deliveries, items)

    @rule(seconds=st.sampled_from([0.5, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.model.now = self.harness.clock.moment = self.model.after(seconds)

    # -- deliveries

    @precondition(lambda self: self.delivery_items)
    @rule(which=picks)
    def claim_deliveries(self, which: list[int]) -> None:
        items = _picked(self.delivery_items, which)
        now = self.model.now
        answers = self.harness.write(lambda connection: claim_deliveries(connection, now, items, lease_s=LEASE_S))
        for item, answer in zip(items, answers, strict=True):
            row = self.model.deliveries[item.id]
            assert (answer is not None) == row.may_be_claimed(item.lease_version, now)
            if answer is not None:
                row.claim(self.model.after(LEASE_S))
                self.delivery_claims.append(answer)
                self.delivery_items.append(answer.work_item)

    @precondition(lambda self: self.delivery_claims)
    @rule(which=picks, outcome=st.sampled_from(list(ATTEMPTS)))
    def record_attempts(self, which: list[int], outcome: Any) -> None:
        chosen = {claimed.work_item: claimed for claimed in _picked(self.delivery_claims, which)}
        attempts = [new_attempt(claimed, outcome) for claimed in chosen.values()]
        answers = self.harness.write(lambda connection: record_attempts(connection, self.model.now, attempts))
        status, wait_s = ATTEMPTS[outcome]
        for item, recorded in zip(chosen, answers, strict=True):
            row = self.model.deliveries[item.id]
            assert (recorded is not None) == row.is_held(item.lease_version)
            if recorded is not None:
                row.record(status, None if wait_s is None else self.model.after(wait_s))

    @precondition(lambda self: self.delivery_items)
    @rule(which=picks)
    def release_deliveries(self, which: list[int]) -> None:
        items = _picked(self.delivery_items, which)
        released = self.harness.write(lambda connection: release(connection, self.model.now, items))
        held = {item.id for item in items if self.model.deliveries[item.id].is_held(item.lease_version)}
        assert released == len(held)
        for delivery_id in held:
            row = self.model.deliveries[delivery_id]
            row.status, row.due_at = DeliveryStatus.PENDING, self.model.now

    @precondition(lambda self: self.model.deliveries)
    @rule(which=pick)
    def resend(self, which: int) -> None:
        [delivery_id] = _picked(list(self.model.deliveries), [which])
        row = self.model.deliveries[delivery_id]
        again = lambda connection: resend(connection, self.model.now, delivery_id)  # noqa: E731
        if row.status == DeliveryStatus.SENDING and row.due_at is not None and row.due_at > self.model.now:
            with pytest.raises(DeliveryInProgress):
                self.harness.write(again)
            return
        item = self.harness.write(again)
        assert item == WorkItem(delivery_id, row.lease_version)
        row.status, row.retries, row.due_at = DeliveryStatus.PENDING, 0, self.model.now
        self.delivery_items.append(item)

    # -- what must hold

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        found_payments, found_deliveries = self.harness.run(moving_columns(self.harness.database))
        assert found_payments == {id_: row.columns for id_, row in self.model.payments.items()}
        assert found_deliveries == {id_: row.columns for id_, row in self.model.deliveries.items()}

    def teardown(self) -> None:
        self.harness.run(assert_sound(self.harness.database))
        logged = self.harness.run(attempts_logged(self.harness.database))
        made = {id_: row.attempts_total for id_, row in self.model.deliveries.items() if row.attempts_total}
        assert logged == made


def _picked[T](items: Sequence[T], which: Sequence[int]) -> list[T]:
    """Counted from the newest: small numbers are drawn most, and long chains of steps need what came last."""
    return [items[-1 - number % len(items)] for number in which]
