"""The verbs in any order, with tickets of any age, against a simple model of them, on both databases.

What is drawn is what a bad day brings: messages twice, late and out of order, workers that wake up after their lease,
a relay at any moment, and clients that repeat themselves. After every step all rows are as the model says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import events
from shared.config import Settings
from shared.db import Database, open_database
from shared.deliveries import (
    ClaimedDelivery,
    Delivered,
    DeliveryAttempt,
    Exhausted,
    Gone,
    TryAgain,
    claim_deliveries,
    record_attempts,
    release,
    resend,
)
from shared.documents import Payment
from shared.errors import DeliveryInProgress, IdempotencyKeyReused, OrderAlreadyPaid, PaymentInProgress, Refused
from shared.idempotency import Claim
from shared.ids import new_id
from shared.leases import Ref, give_back, take_due
from shared.lifecycle import DeliveryStatus, FailureCode, HistoryReason, MethodType, PaymentStatus
from shared.models import deliveries, delivery_attempts, metadata, payment_methods, payments
from shared.payments.accept import Accepted, Intent, accept
from shared.payments.cancel import cancel
from shared.payments.process import Approval, Failure, Outcome, Postpone, Record, Release, Retry, claim, record
from tests import model
from tests.rows import assert_sound
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import Approved, ChargeRequest
from worker.gateway.simulator import SimulatedGateway
from worker.process_payments import _settled as outcome_of

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LEASE_S = 30.0
METHOD_ID = UUID(int=1)
DECLINED_AMOUNT = 2  # of the two that are drawn, the one that the gateway declines
TRIES = {  # what may become of an attempt to deliver, and where that leaves the delivery for how long
    Delivered(): (DeliveryStatus.DELIVERED, None),
    TryAgain(3): (DeliveryStatus.PENDING, 3),
    TryAgain(120): (DeliveryStatus.PENDING, 120),
    Exhausted(): (DeliveryStatus.EXHAUSTED, None),
    Gone(): (DeliveryStatus.EXHAUSTED, None),
}

picks = st.lists(st.integers(0, 99), min_size=1, max_size=4)  # each modulo the number of what there is
pick = st.integers(0, 99)
intents = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from([None, "k1", "k2", "k3"]), st.sampled_from([1, DECLINED_AMOUNT])),
    min_size=1,
    max_size=3,
    unique_by=lambda drawn: drawn[1] or object(),
)


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.moment = NOW

    async def now(self, _connection: AsyncConnection) -> datetime:
        return self.moment


class Stage:
    """A database in a loop of its own, and a gateway over it."""

    def __init__(self, configured: Settings) -> None:
        self._runner = asyncio.Runner()
        self.clock = SetClock()
        self.database = open_database(configured, clock=self.clock)
        self.ledger = Ledger(self.database, batch_max=10, queue_max=10)
        self.gateway = SimulatedGateway(self.ledger, success_rate=1, delay_min_ms=0, delay_max_ms=0)

    def __enter__(self) -> Self:
        self._booking = self._runner.get_loop().create_task(self.ledger.run())
        return self

    def __exit__(self, *_error: object) -> None:
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        self.ledger.close()
        await self._booking
        await self.database.dispose()

    def run[T](self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self._runner.run(awaited())

    def write[T](self, verb: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `verb` answers in a transaction of its own."""

        async def transact() -> T:
            async with self.database.transaction() as connection:
                return await verb(connection)

        return self._runner.run(transact())

    def empty(self) -> None:
        async def work(connection: AsyncConnection) -> None:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(delete(table))
            await connection.execute(insert(payment_methods), _method())

        self.write(work)
        self.clock.moment = NOW


def _method() -> dict[str, Any]:
    return {
        "id": METHOD_ID, "user_id": "1", "type": "CREDIT_CARD", "display_name": "", "is_default": True,
        "is_active": True, "fingerprint": "f", "details": {}, "scenario": None, "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip


class Verbs(RuleBasedStateMachine):
    """Every verb as a rule; `tickets` and `claims` of any age are kept and used again."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.stage.empty()
        self.model = model.Model(NOW)
        self.tickets: list[Ref] = []
        self.claims: list[Payment] = []
        self.answers: list[Record] = []
        self.delivery_tickets: list[Ref] = []
        self.delivery_claims: list[ClaimedDelivery] = []

    @initialize()
    def begin_with_a_delivery(self) -> None:
        """Else most runs end before there is one."""
        self.accept([("A", None, 1)])
        self.cancel(0)

    # -- clients

    @rule(drawn=intents)
    def accept(self, drawn: list[tuple[str, str | None, int]]) -> None:
        batch = [_intent(*each) for each in drawn]
        answers = self.stage.write(lambda connection: accept(connection, self.model.now, batch))
        for intent, answer in zip(batch, answers, strict=True):
            expected = self._expected(intent)
            if isinstance(expected, Refused):
                assert (type(answer), vars(answer)) == (type(expected), vars(expected))
                continue
            assert isinstance(answer, Accepted)
            assert (answer.payment.id, answer.is_replay) == (expected, expected != intent.id)
            if not answer.is_replay:
                self.tickets.append(answer.payment.ref)

    def _expected(self, intent: Intent) -> UUID | Refused:
        """The payment of the intent, which the model then knows, or why there is none."""
        key = intent.idempotency
        if key is not None and key.key in self.model.keys:
            fingerprint, payment_id = self.model.keys[key.key]
            return payment_id if fingerprint == key.fingerprint else IdempotencyKeyReused("")
        if standing := self.model.standing(intent.order_id):
            payment_id, payment = standing
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
        answer = self.stage.write(lambda connection: cancel(connection, payment_id, by="user:1", now=self.model.now))
        assert answer is not None
        payment = self.model.payments[payment_id]
        assert answer.is_new == (payment.status == PaymentStatus.PENDING)
        if answer.is_new:
            payment.end(PaymentStatus.CANCELLED)
            self._tell(events.Told(tuple(answer.deliveries)))

    # -- workers

    @precondition(lambda self: self.tickets)
    @rule(which=picks)
    def claim(self, which: list[int]) -> None:
        refs = _picked(self.tickets, which)
        answers = self.stage.write(lambda connection: claim(connection, self.model.now, refs, lease_s=LEASE_S))
        for ref, answer in zip(refs, answers, strict=True):
            payment = self.model.payments[ref.id]
            assert (answer is not None) == payment.may_be_claimed(ref.attempt)
            if answer is not None:
                payment.claim(self.model.after(LEASE_S))
                self.claims.append(answer)
                self.tickets.append(answer.ref)

    @precondition(lambda self: self.claims)
    @rule(which=pick, closes=st.booleans())
    def ask_the_gateway(self, which: int, closes: bool) -> None:
        """Also with a claim that was lost long ago: its worker was only paused."""
        [claimed] = _picked(self.claims, [which])
        gateway = self.stage.gateway
        request = _request(claimed)
        answer = self.stage.run(gateway.close(request) if closes else gateway.charge(request))
        payment = self.model.payments[claimed.id]
        if payment.is_charged is None:
            payment.is_charged = not closes and claimed.amount != DECLINED_AMOUNT
        assert isinstance(answer, Approved) == payment.is_charged
        reason = HistoryReason.GATEWAY_APPROVED if payment.is_charged else HistoryReason.GATEWAY_DECLINED
        self.answers.append(Record(claimed, outcome_of(answer, reason)))

    @precondition(lambda self: self.answers)
    @rule(which=picks, sends_at_once=st.booleans())
    def settle(self, which: list[int], *, sends_at_once: bool) -> None:
        items = {item.payment.ref: item for item in _picked(self.answers, which)}
        self._record(list(items.values()), claim_for_s=LEASE_S if sends_at_once else None)

    @precondition(lambda self: self.claims)
    @rule(which=pick, outcome=st.sampled_from([Retry(2.0), Release(), Postpone(1.0, NOW + timedelta(seconds=60))]))
    def put_off(self, which: int, outcome: Outcome) -> None:
        [claimed] = _picked(self.claims, [which])
        self._record([Record(claimed, outcome)])

    def _record(self, items: Sequence[Record], *, claim_for_s: float | None = None) -> None:
        answers = self.stage.write(
            lambda connection: record(connection, self.model.now, items, claim_deliveries_for_s=claim_for_s)
        )
        for item, answer in zip(items, answers, strict=True):
            payment = self.model.payments[item.payment.id]
            assert (answer is not None) == payment.is_held(item.payment.attempt)
            if answer is None:
                continue
            payment.gateway_tries = item.payment.gateway_tries + isinstance(item.outcome, Retry)
            match item.outcome:
                case Approval() | Failure():
                    is_approved = isinstance(item.outcome, Approval)
                    payment.end(PaymentStatus.COMPLETED if is_approved else PaymentStatus.FAILED)
                    self._tell(answer.told)
                case Retry(wait_s):
                    payment.due_at = self.model.after(wait_s)
                case Postpone(wait_s, until):
                    payment.due_at = max(self.model.now, min(self.model.after(wait_s), until))
                case Release():
                    payment.due_at = self.model.now

    def _tell(self, told: events.Told) -> None:
        tickets = [*told.tickets, *(claimed.ref for claimed in told.claimed)]
        self.model.tell(tickets, claimed_for_s=LEASE_S if told.claimed else None)
        self.delivery_tickets += tickets
        self.delivery_claims += told.claimed

    # -- the relay, and time

    @rule(limit=st.integers(1, 3))
    def relay_payments(self, limit: int) -> None:
        take = lambda connection: take_due(connection, payments, now=self.model.now, limit=limit)  # noqa: E731
        taken = self.stage.write(take)
        self.model.take(self.model.payments, taken, limit)
        self.tickets += taken

    @rule(limit=st.integers(1, 3))
    def relay_deliveries(self, limit: int) -> None:
        take = lambda connection: take_due(connection, deliveries, now=self.model.now, limit=limit)  # noqa: E731
        taken = self.stage.write(take)
        self.model.take(self.model.deliveries, taken, limit)
        self.delivery_tickets += taken

    @precondition(lambda self: self.tickets)
    @rule(which=picks)
    def give_payments_back(self, which: list[int]) -> None:
        refs = _picked(self.tickets, which)
        self.stage.write(lambda connection: give_back(connection, payments, refs, now=self.model.now))
        self.model.give_back(self.model.payments, refs)

    @precondition(lambda self: self.delivery_tickets)
    @rule(which=picks)
    def give_deliveries_back(self, which: list[int]) -> None:
        refs = _picked(self.delivery_tickets, which)
        self.stage.write(lambda connection: give_back(connection, deliveries, refs, now=self.model.now))
        self.model.give_back(self.model.deliveries, refs)

    @rule(seconds=st.sampled_from([0.5, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.model.now = self.stage.clock.moment = self.model.after(seconds)

    # -- deliveries

    @precondition(lambda self: self.delivery_tickets)
    @rule(which=picks)
    def claim_deliveries(self, which: list[int]) -> None:
        refs = _picked(self.delivery_tickets, which)
        now = self.model.now
        answers = self.stage.write(lambda connection: claim_deliveries(connection, now, refs, lease_s=LEASE_S))
        for ref, answer in zip(refs, answers, strict=True):
            row = self.model.deliveries[ref.id]
            assert (answer is not None) == row.may_be_claimed(ref.attempt, now)
            if answer is not None:
                row.claim(self.model.after(LEASE_S))
                self.delivery_claims.append(answer)
                self.delivery_tickets.append(answer.ref)

    @precondition(lambda self: self.delivery_claims)
    @rule(which=picks, outcome=st.sampled_from(list(TRIES)))
    def record_attempts(self, which: list[int], outcome: Any) -> None:
        chosen = {claimed.ref: claimed for claimed in _picked(self.delivery_claims, which)}
        attempts = [_attempt(claimed, outcome) for claimed in chosen.values()]
        answers = self.stage.write(lambda connection: record_attempts(connection, self.model.now, attempts))
        status, wait_s = TRIES[outcome]
        for ref, is_recorded in zip(chosen, answers, strict=True):
            row = self.model.deliveries[ref.id]
            assert is_recorded == row.is_held(ref.attempt)
            if is_recorded:
                row.record(status, None if wait_s is None else self.model.after(wait_s))

    @precondition(lambda self: self.delivery_tickets)
    @rule(which=picks)
    def release_deliveries(self, which: list[int]) -> None:
        refs = _picked(self.delivery_tickets, which)
        released = self.stage.write(lambda connection: release(connection, self.model.now, refs))
        held = {ref.id for ref in refs if self.model.deliveries[ref.id].is_held(ref.attempt)}
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
                self.stage.write(again)
            return
        ticket = self.stage.write(again)
        assert ticket == Ref(delivery_id, row.attempt)
        row.status, row.tries, row.due_at = DeliveryStatus.PENDING, 0, self.model.now
        self.delivery_tickets.append(ticket)

    # -- what must hold

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        found_payments, found_deliveries = self.stage.run(_rows(self.stage.database))
        assert found_payments == {id_: row.columns for id_, row in self.model.payments.items()}
        assert found_deliveries == {id_: row.columns for id_, row in self.model.deliveries.items()}

    def teardown(self) -> None:
        self.stage.run(assert_sound(self.stage.database))
        logged = self.stage.run(_logged(self.stage.database))
        made = {id_: row.attempts_made for id_, row in self.model.deliveries.items() if row.attempts_made}
        assert logged == made


def _picked[T](items: Sequence[T], which: Sequence[int]) -> list[T]:
    """Counted from the newest: small numbers are drawn most, and long chains of steps need what came last."""
    return [items[-1 - number % len(items)] for number in which]


def _intent(order_id: str, key: str | None, amount: int) -> Intent:
    payment_id = new_id()
    return Intent(
        id=payment_id,
        user_id="1",
        created_by="user:1",
        order_id=order_id,
        payment_method_id=METHOD_ID,
        amount=amount,
        currency="USD",
        description=None,
        metadata={},
        callback_url="https://shop.example/",
        correlation_id=None,
        idempotency=Claim("user:1 /payments", key, f"{order_id} {amount}", payment_id) if key else None,
    )


def _request(payment: Payment) -> ChargeRequest:
    return ChargeRequest(
        payment_id=payment.id,
        identity=str(payment.id),
        method_type=MethodType.CREDIT_CARD,
        scenario=FailureCode.CARD_DECLINED if payment.amount == DECLINED_AMOUNT else None,
        amount=payment.amount,
        currency=payment.currency,
        gateway_try=payment.gateway_tries,
    )


def _attempt(claimed: ClaimedDelivery, outcome: Any) -> DeliveryAttempt:
    return DeliveryAttempt(
        delivery=claimed, outcome=outcome, duration_ms=1, status_code=None, error=None, response_body=b""
    )


type Rows = dict[UUID, tuple[object, ...]]


async def _rows(database: Database) -> tuple[Rows, Rows]:
    async with database.read() as connection:
        found = [await connection.execute(select(table)) for table in (payments, deliveries)]
    moved = ("status", "sequence", "attempt", "gateway_tries", "due_at")
    sent = ("status", "attempt", "tries", "attempts_made", "due_at")
    first, second = (
        {row["id"]: tuple(row[name] for name in names) for row in rows.mappings()}
        for rows, names in zip(found, (moved, sent), strict=True)
    )
    return first, second


async def _logged(database: Database) -> dict[UUID, int]:
    async with database.read() as connection:
        counted = select(delivery_attempts.c.delivery_id, func.count()).group_by(delivery_attempts.c.delivery_id)
        return {row[0]: row[1] for row in await connection.execute(counted)}


@pytest.fixture
def stage(settings: Settings) -> Iterator[Stage]:
    with Stage(settings) as stage:
        yield stage


def examine(stage: Stage, *, examples: int, steps: int, **options: Any) -> None:
    run_state_machine_as_test(
        lambda: Verbs(stage),  # type: ignore[arg-type]  # hypothesis takes any factory of machines
        settings=settings_of(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), **options,
        ),
    )  # fmt: skip


def test_verbs_in_any_order_do_what_the_model_says(stage: Stage) -> None:
    examine(stage, examples=25, steps=40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verbs_in_any_order_do_what_the_model_says_however_long_one_looks(stage: Stage) -> None:
    examine(stage, examples=500, steps=50)
