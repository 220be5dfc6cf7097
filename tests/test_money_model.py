"""Authorizations, captures, voids and refunds in any order, with claims of any age, against a simple model.

What is drawn is what a bad day brings: workers that were paused and ask the gateway later, clients that change their
minds, authorizations that end meanwhile. After every step all rows and the gateway's ledger are as the model says.
"""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from shared.broker.client import Queue
from shared.database.leases import take_due
from shared.database.refund_tables import refunds
from shared.database.tables import payments
from shared.ids import new_id
from shared.payments.outcomes import Approved, Declined, Release, Retry, Unsettled
from shared.refund_lifecycle import RefundFailureCode, RefundHistoryReason, RefundReason, RefundStatus
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundOutcome, RefundSettled, RefundWork
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.requests import (
    ExceedsBalance,
    NotRefundable,
    RefundMoved,
    RefundRequest,
    cancel_refund,
    request_refund,
)
from tests.support import money_model as model
from tests.support.harness import Harness
from tests.support.machines import examine
from tests.support.money_client_verbs import BY, parts, pick, picked, picks
from tests.support.money_rows import money_rows
from tests.support.money_verbs import LEASE_S, REPUBLISHED_AFTER_S, PaymentVerbs, put_offs
from tests.support.rows import assert_sound

pytest_plugins = ["tests.support.machine_fixtures"]


class MoneyVerbs(PaymentVerbs):
    """The verbs of refunds beside those of payments."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        self.refunds: dict[UUID, model.Refund] = {}
        self.refund_claims: list[RefundWork] = []
        self.refund_answers: list[RefundRecord] = []

    # -- clients

    @precondition(lambda self: self.payments)
    @rule(which=pick, amount=parts)
    def request_refund(self, which: int, amount: int | None) -> None:
        [payment_id] = picked(list(self.payments), [which])
        payment = self.payments[payment_id]
        request = RefundRequest(
            id=new_id(), amount=amount, reason=RefundReason.OTHER, metadata={}, created_by=BY, correlation_id=None
        )
        answer = self.harness.write(lambda connection: request_refund(connection, payment_id, request, now=self.now))
        wanted = payment.refundable if amount is None else amount
        if not payment.is_refundable:
            assert isinstance(answer, NotRefundable)
        elif not 0 < wanted <= payment.refundable:
            assert isinstance(answer, ExceedsBalance)
        else:
            assert isinstance(answer, RefundMoved)
            payment.reserve(wanted)
            due_at = answer.refund.due_at
            self.refunds[answer.refund.id] = model.Refund(payment_id, wanted, payment.sequence, due_at)
            self.items[Queue.REFUND] += answer.work

    @precondition(lambda self: self.refund_claims or self.items[Queue.REFUND])
    @rule(which=pick)
    def cancel_refund(self, which: int) -> None:
        [refund_id] = picked(list(self.refunds), [which])
        row = self.refunds[refund_id]
        known = self.harness.run(money_rows(self.harness.database)).refund(refund_id)
        answer = self.harness.write(lambda connection: cancel_refund(connection, known, by=BY, now=self.now))
        assert answer is not None
        assert answer.is_moved == (row.status is RefundStatus.PENDING)
        if answer.is_moved:
            row.end(RefundStatus.CANCELLED)
            self.payments[row.payment_id].end_refund(row.amount, is_paid=False)

    # -- workers, on refunds

    @precondition(lambda self: self.items[Queue.REFUND])
    @rule(which=picks)
    def claim_refunds(self, which: list[int]) -> None:
        items = picked(self.items[Queue.REFUND], which)
        answers = self.harness.write(lambda connection: claim_refunds(connection, self.now, items, lease_s=LEASE_S))
        for item, answer in zip(items, answers, strict=True):
            row = self.refunds[item.id]
            assert (answer is not None) == row.may_be_claimed(item.lease_version)
            if answer is not None:
                row.claim(self.after(LEASE_S))
                self.refund_claims.append(answer.row)
                self.items[Queue.REFUND].append(answer.row.refund.work_item)

    @precondition(lambda self: self.refund_claims)
    @rule(which=pick, closes=st.booleans())
    def ask_for_refund(self, which: int, *, closes: bool) -> None:
        [work] = picked(self.refund_claims, [which])
        gateway = self.harness.gateway
        code = RefundFailureCode.NETWORK_ERROR
        answer = self.harness.run(
            gateway.close_refund_or_fetch(work.payment, work.refund, code)
            if closes
            else gateway.refund(work.payment, work.refund)
        )
        assert isinstance(answer, Approved | Declined)
        is_paid = self.payments[work.payment.id].ask_to_refund(self.refunds[work.refund.id], closes=closes)
        assert isinstance(answer, Approved) == is_paid
        reason = RefundHistoryReason.GATEWAY_APPROVED if is_paid else RefundHistoryReason.GATEWAY_DECLINED
        self.refund_answers.append(RefundRecord(work, RefundSettled(answer, reason)))

    @precondition(lambda self: self.refund_answers)
    @rule(which=picks)
    def settle_refunds(self, which: list[int]) -> None:
        items = {item.work.refund.work_item: item for item in picked(self.refund_answers, which)}
        self._record_refunds(list(items.values()))

    @precondition(lambda self: self.refund_claims)
    @rule(which=pick, outcome=put_offs)
    def put_refund_off(self, which: int, outcome: RefundOutcome) -> None:
        [work] = picked(self.refund_claims, [which])
        self._record_refunds([RefundRecord(work, outcome)])

    def _record_refunds(self, items: Sequence[RefundRecord]) -> None:
        answers = self.harness.write(lambda connection: record_refunds(connection, self.now, items))
        for item, answer in zip(items, answers, strict=True):
            row = self.refunds[item.work.refund.id]
            assert (answer is not None) == row.is_held(item.work.refund.lease_version)
            match item.outcome:
                case _ if answer is None:
                    continue
                case RefundSettled(gateway_answer):
                    is_paid = isinstance(gateway_answer, Approved)
                    row.end(RefundStatus.COMPLETED if is_paid else RefundStatus.FAILED)
                    self.payments[row.payment_id].end_refund(row.amount, is_paid=is_paid)
                case Unsettled():
                    raise AssertionError("no test card is slow here")
                case Retry(wait_s):
                    row.due_at = self.after(wait_s)
                case Release():
                    row.due_at = self.now

    # -- the relay, and time

    @rule(queue=st.sampled_from([Queue.PROCESS, Queue.REFUND]))
    def relay(self, queue: Queue) -> None:
        table, rows = (payments, self.payments) if queue is Queue.PROCESS else (refunds, self.refunds)
        taken = list(self.harness.write(lambda connection: take_due(connection, table, now=self.now, limit=100)))
        due = {id_ for id_, row in rows.items() if row.due_at is not None and row.due_at <= self.now}
        assert {item.id for item in taken} == due
        for item in taken:
            rows[item.id].due_at = self.after(REPUBLISHED_AFTER_S)
        self.items[queue] += taken

    @rule(seconds=st.sampled_from([0.5, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now = self.harness.clock.moment = self.after(seconds)

    # -- what must hold

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        found = self.harness.run(money_rows(self.harness.database))
        assert found.payments == {id_: row.columns for id_, row in self.payments.items()}
        assert found.balances == {id_: row.balance for id_, row in self.payments.items() if row.balance}
        assert found.refund_columns == {id_: row.columns for id_, row in self.refunds.items()}
        assert found.ledger == {id_: row.steps for id_, row in self.payments.items() if row.steps}

    def teardown(self) -> None:
        self.harness.run(assert_sound(self.harness.database))


def test_money_moves_as_the_model_says(harness: Harness) -> None:
    examine(lambda: MoneyVerbs(harness), examples=12, steps=40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_money_moves_as_the_model_says_however_long_one_looks(harness: Harness) -> None:
    examine(lambda: MoneyVerbs(harness), examples=500, steps=60)
