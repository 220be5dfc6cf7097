"""A worker's payments from the claim to the record, with a gateway that is passed in, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from shared.db import Database
from shared.documents import Payment
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.leases import Ref
from shared.lifecycle import FailureCode, HistoryReason, MethodType, PaymentStatus
from shared.models import payments
from shared.queue import Carrier, Publisher, Queue
from tests.messages import refs_in
from tests.rows import accepted, assert_sound, books, claimed, read, read_all, reasons, write
from tests.waiting import eventually
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import (
    Answer,
    Approved,
    ChargeRequest,
    Declined,
    Gateway,
    GatewayUnavailable,
    OutcomeUnknown,
)
from worker.gateway.simulator import SimulatedGateway
from worker.process_payments import Processor, Rules

NOW = datetime.now(UTC).replace(microsecond=0)
APPROVED = Approved("stripe_mock", "ch_1", {"authorization_code": "A1B2C3"}, "rate")
DECLINED = Declined("stripe_mock", FailureCode.CARD_DECLINED, "The issuer declined the card.", {}, "card")
NOTHING_HAPPENED = GatewayUnavailable("rate")
UNKNOWN = OutcomeUnknown("no answer")


@dataclass
class ScriptedGateway:
    """Answers each charge with the next of `script`, of which the last stays; but not before `opened` is set."""

    script: list[Answer | Exception] = field(default_factory=lambda: [APPROVED])
    on_record: Answer | None = None  # what `close` finds
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[ChargeRequest] = field(default_factory=list)
    closed: list[tuple[ChargeRequest, FailureCode]] = field(default_factory=list)

    async def charge(self, request: ChargeRequest) -> Answer:
        self.asked.append(request)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await self.opened.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self, request: ChargeRequest, failure_code: FailureCode = FailureCode.PROCESSING_ERROR) -> Answer:
        self.closed.append((request, failure_code))
        return self.on_record or Declined("stripe_mock", failure_code, "Closed.", {}, "closed")


def saying(*script: Answer | Exception, on_record: Answer | None = None) -> ScriptedGateway:
    """A gateway that answers at once."""
    gateway = ScriptedGateway(list(script), on_record)
    gateway.opened.set()
    return gateway


class Shaky(Database):
    """The test's database, with troubles on demand."""

    def __init__(self, sound: Database) -> None:
        super().__init__(sound._engine, clock=sound.clock)
        self.is_away = False
        self.commits_lost = 0  # of the next ones: they happen, and nobody is told

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        async with super().transaction() as connection:
            yield connection
        if self.commits_lost:
            self.commits_lost -= 1
            raise CommitUnknown("lost")


@dataclass
class Hands:
    """A processor that runs, and how its run ended."""

    processor: Processor
    publisher: Publisher
    run: asyncio.Task[None]

    async def offer(self, *rows: Payment) -> list[Ref]:
        return await self.processor.offer([row.ref for row in rows])

    async def idle(self) -> None:
        """Nothing is in the gateway, and nothing waits for its record: slots are free before that."""
        await eventually(self.processor._idle.is_set)


@asynccontextmanager
async def working(database: Database, gateway: Gateway, carrier: Carrier, **rules: Any) -> AsyncIterator[Hands]:
    defaults: dict[str, Any] = {
        "concurrency": 10,
        "lease_s": 30,
        "max_claims": 5,
        "gateway_tries_max": 3,
        "gateway_backoff_s": 1.0,
        "is_seeded": False,
    }
    publisher = Publisher(carrier)
    processor = Processor(database, gateway, publisher, Rules(**{**defaults, **rules}))
    run = asyncio.create_task(processor.run())
    await eventually(lambda: processor.free)
    try:
        yield Hands(processor, publisher, run)
    finally:
        await processor.stop(0)
        await asyncio.wait([run])


async def settled(database: Database, *rows: Payment) -> list[Payment]:
    """The payments, once all have ended."""

    async def all_ended() -> list[Payment]:
        found = [await read(database, row.id) for row in rows]
        return found if all(payment.status.is_terminal for payment in found) else []

    return await eventually(all_ended)


async def due_again(database: Database, row: Payment, *, reason: HistoryReason) -> Payment:
    """The payment, once its claim has ended without settling it."""

    async def is_due() -> Payment | None:
        found = await read(database, row.id)
        return found if found.due_reason == reason else None

    found = await eventually(is_due)
    assert found is not None
    return found


# -- what the gateway says is what is recorded


async def test_an_approved_payment_is_completed_and_everybody_is_told(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW, callback_url="https://shop.example/")
    await write(database, row)
    async with working(database, saying(APPROVED), carrier) as hands:
        assert await hands.offer(row) == []
        [payment] = await settled(database, row)
        await hands.idle()
    assert (payment.status, payment.gateway, payment.gateway_transaction_id) == ("COMPLETED", "stripe_mock", "ch_1")
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]
    subscription = carrier.redis.pubsub(ignore_subscribe_messages=True)
    await subscription.subscribe("payments:settled")
    await hands.publisher.run_once()
    message = await eventually(lambda: subscription.get_message(timeout=1))
    assert message is not None
    assert str(row.id) in message["data"].decode()
    assert len(await refs_in(carrier, Queue.DELIVER)) == 1
    await subscription.aclose()  # type: ignore[no-untyped-call]


async def test_a_declined_payment_is_failed_with_the_gateways_word(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(DECLINED)
    async with working(database, gateway, carrier) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code, payment.outcome_rule) == ("FAILED", "card_declined", "card")
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_declined"]
    assert len(gateway.asked) == 1
    assert gateway.closed == []


async def test_the_gateway_is_asked_for_what_the_payment_says(database: Database, carrier: Carrier) -> None:
    row = claimed(
        NOW,
        amount=4711,
        currency="EUR",
        gateway_tries=1,
        method={"type": "PAYPAL", "details": {}, "scenario": "payer_account_restricted"},
    )
    await write(database, row)
    gateway = saying(DECLINED)
    async with working(database, gateway, carrier) as hands:
        await hands.offer(row)
        await settled(database, row)
    assert gateway.asked == [
        ChargeRequest(
            payment_id=row.id,
            identity=str(row.id),
            method_type=MethodType.PAYPAL,
            scenario=FailureCode.PAYER_ACCOUNT_RESTRICTED,
            amount=4711,
            currency="EUR",
            gateway_try=1,
        )
    ]


async def test_with_a_seed_a_payment_is_its_key_or_the_number_of_its_order(
    database: Database, carrier: Carrier
) -> None:
    failed: dict[str, Any] = {"status": PaymentStatus.FAILED, "due_at": None, "due_reason": None}
    earlier = accepted(NOW, order_id="7", **failed)
    rows = [
        accepted(NOW, order_id="7"),
        accepted(NOW, order_id="8", user_id="2"),
        accepted(NOW, idempotency_key="a key"),
    ]
    await write(database, earlier, *rows)
    gateway = saying(APPROVED)
    async with working(database, gateway, carrier, is_seeded=True) as hands:
        await hands.offer(*rows)
        await settled(database, *rows)
    assert sorted(request.identity for request in gateway.asked) == ["1 key a key", "1 order 7 1", "2 order 8 0"]


async def test_no_transaction_is_open_while_the_gateway_is_asked(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier) as hands:
        await hands.offer(row)
        await eventually(lambda: gateway.asked)
        async with asyncio.timeout(5), database.transaction() as connection:  # SQLite has one writer
            await connection.execute(select(payments.c.id).where(payments.c.id == row.id).with_for_update(nowait=True))
        gateway.opened.set()
        await settled(database, row)


# -- nothing happened, or nobody knows


async def test_a_payment_whose_gateway_is_unreachable_is_tried_again_with_growing_waits_and_then_fails(
    database: Database, carrier: Carrier
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(NOTHING_HAPPENED)
    waits = []
    async with working(database, gateway, carrier, gateway_tries_max=4, gateway_backoff_s=40) as hands:
        for tries in range(1, 4):
            await hands.offer(await read(database, row.id))
            payment = await due_again(database, row, reason=HistoryReason.RETRIED)
            assert payment.due_at is not None
            assert (payment.status, payment.gateway_tries, payment.attempt) == ("PROCESSING", tries, tries)
            waits.append((payment.due_at - payment.updated_at).total_seconds())
            await hands.idle()
        await hands.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    for number, wait in enumerate(waits):
        assert 40 * 2**number <= wait < 40 * 2**number + 10
    assert (payment.status, payment.failure_code, payment.gateway_tries) == ("FAILED", "network_error", 3)
    assert payment.outcome_rule == "rate"
    assert [request.gateway_try for request in gateway.asked] == [0, 1, 2, 3]
    assert [code for _, code in gateway.closed] == [FailureCode.NETWORK_ERROR]
    assert await reasons(database, row.id) == [
        "accepted", "claimed", "retried", "retried", "retried", "gateway_unreachable",
    ]  # fmt: skip


async def test_out_of_tries_a_charge_that_is_on_record_after_all_completes_the_payment(
    database: Database, carrier: Carrier
) -> None:
    row = claimed(NOW, gateway_tries=2)
    await write(database, row)
    async with working(database, saying(NOTHING_HAPPENED, on_record=APPROVED), carrier) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.gateway_transaction_id) == ("COMPLETED", "ch_1")
    assert (await reasons(database, row.id))[-1] == "gateway_approved"


async def test_after_a_network_error_for_good_the_books_are_closed(database: Database, carrier: Carrier) -> None:
    method = {"type": "CREDIT_CARD", "details": {}, "scenario": "network_error"}
    row = claimed(NOW, claims=3, gateway_tries=2, method=method)
    await write(database, row)
    async with simulated(database) as gateway, working(database, gateway, carrier) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
        assert (payment.status, payment.failure_code) == ("FAILED", "network_error")
        assert payment.outcome_rule == "card"
        late = ChargeRequest(row.id, str(row.id), MethodType.CREDIT_CARD, None, row.amount, row.currency, 3)
        assert isinstance(await gateway.charge(late), Declined)
    assert await books(database, row.id) == ["decline"]
    await assert_sound(database)


async def test_an_unknown_outcome_is_asked_for_again_under_the_same_key(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(UNKNOWN, UNKNOWN, APPROVED)
    async with working(database, gateway, carrier) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert len(gateway.asked) == 3
    assert set(map(str, gateway.asked)) == {str(gateway.asked[0])}
    assert (payment.attempt, payment.gateway_tries) == (1, 0)


async def test_nobody_is_asked_once_the_lease_is_nearly_over(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(UNKNOWN)
    async with working(database, gateway, carrier, lease_s=1.2) as hands:  # a second of it is margin
        await hands.offer(row)
        await hands.idle()
    assert 1 <= len(gateway.asked) <= 2
    assert (await read(database, row.id)).due_reason == "lease_expired"


# -- payments that take their workers down with them


@pytest.mark.parametrize(("claims", "tries"), [(4, 0), (6, 2)])
async def test_within_the_limit_of_claims_a_payment_is_charged_as_ever(
    database: Database, carrier: Carrier, claims: int, tries: int
) -> None:
    row = claimed(NOW, claims=claims, gateway_tries=tries)
    await write(database, row)
    gateway = saying(APPROVED)
    async with working(database, gateway, carrier, max_claims=5) as hands:
        await hands.offer(row)
        await settled(database, row)
    assert len(gateway.asked) == 1
    assert gateway.closed == []


@pytest.mark.parametrize(
    ("on_record", "status", "failure_code"),
    [(APPROVED, "COMPLETED", None), (DECLINED, "FAILED", "card_declined"), (None, "FAILED", "processing_error")],
    ids=["charged", "declined", "nothing"],
)
async def test_beyond_it_only_the_gateways_record_counts(
    database: Database, carrier: Carrier, on_record: Answer | None, status: str, failure_code: str | None
) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    gateway = saying(APPROVED, on_record=on_record)
    async with working(database, gateway, carrier, max_claims=5) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert gateway.asked == []
    assert (payment.status, payment.failure_code) == (status, failure_code)
    assert (await reasons(database, row.id))[-1] == "claims_exhausted"


async def test_a_payment_that_was_given_up_can_never_be_charged_later(database: Database, carrier: Carrier) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    async with simulated(database) as gateway, working(database, gateway, carrier, max_claims=5) as hands:
        await hands.offer(row)
        await settled(database, row)
        late = ChargeRequest(row.id, str(row.id), MethodType.CREDIT_CARD, None, row.amount, row.currency, 0)
        answer = await gateway.charge(late)
    assert isinstance(answer, Declined)
    assert await books(database, row.id) == ["decline"]
    await assert_sound(database)


# -- slots


async def test_never_more_payments_than_slots_and_the_rest_is_left_to_others(
    database: Database, carrier: Carrier
) -> None:
    rows = [accepted(NOW) for _ in range(12)]
    refs = await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier, concurrency=5) as hands:
        assert await hands.processor.offer(refs) == refs[5:]
        await eventually(lambda: hands.processor.in_gateway == 5)
        assert hands.processor.free == 0
        assert await hands.processor.offer(refs[5:]) == refs[5:]
        assert [row.attempt for row in await read_all(database)] == [1] * 5 + [0] * 7
        gateway.opened.set()
        await settled(database, *rows[:5])
        await hands.idle()
        assert await hands.processor.offer(refs[5:]) == refs[10:]


async def test_a_slot_is_free_again_when_the_gateway_has_answered(database: Database, carrier: Carrier) -> None:
    """What is left to do is the database's: if it is slow, the gateway's slots need not stand empty."""
    rows = [accepted(NOW) for _ in range(5)]
    refs = await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier, concurrency=5) as hands:
        await hands.processor.offer(refs)
        await eventually(lambda: hands.processor.in_gateway == 5)
        assert not await hands.processor.frees_a_slot(0.01)
        waiting = asyncio.create_task(hands.processor.frees_a_slot(10))
        async with holding_the_database(database):
            gateway.opened.set()
            await eventually(lambda: hands.processor.free == 5)
            async with asyncio.timeout(2):
                assert await waiting
            assert {payment.status for payment in await read_all(database)} == {PaymentStatus.PROCESSING}
        await settled(database, *rows)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # SQLite cannot hold the first five alone
async def test_no_slot_is_given_out_while_too_many_answers_wait_to_be_recorded(
    database: Database, carrier: Carrier
) -> None:
    rows = [accepted(NOW) for _ in range(11)]
    refs = await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier, concurrency=5) as hands:
        await hands.processor.offer(refs[:5])
        await eventually(lambda: hands.processor.in_gateway == 5)
        async with holding_the_database(database, payments.c.id.in_([ref.id for ref in refs[:5]])):
            gateway.opened.set()
            await eventually(lambda: hands.processor.free == 5)
            assert await hands.processor.offer(refs[5:10]) == []
            await eventually(lambda: len(gateway.asked) == 10 and not hands.processor.in_gateway)
            assert hands.processor.free == 0
            assert await hands.processor.offer(refs[10:]) == refs[10:]
        await settled(database, *rows[:10])
        await hands.idle()
    assert (await read(database, rows[10].id)).attempt == 0


async def test_offers_at_the_same_time_share_the_slots(database: Database, carrier: Carrier) -> None:
    refs = await write(database, *(accepted(NOW) for _ in range(12)))
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier, concurrency=5) as hands:
        rests = await asyncio.gather(*(hands.processor.offer(refs[start : start + 4]) for start in (0, 4, 8)))
        assert [len(rest) for rest in rests] == [0, 3, 4]
        await eventually(lambda: len(gateway.asked) == 5)
        assert hands.processor.free == 0


async def test_duplicates_and_stale_tickets_are_no_ops_and_keep_no_slot(database: Database, carrier: Carrier) -> None:
    row, ended = claimed(NOW, claims=2), accepted(NOW, status=PaymentStatus.CANCELLED, due_at=None, due_reason=None)
    await write(database, row, ended)
    tickets = [row.ref, Ref(row.id, 1), row.ref, Ref(row.id, 7), ended.ref]
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier) as hands:
        assert await hands.processor.offer(tickets) == []
        await eventually(lambda: gateway.asked)
        assert hands.processor.free == 9
        assert await hands.processor.offer(tickets) == []
        assert hands.processor.free == 9
        gateway.opened.set()
        await settled(database, row)
        await hands.idle()
    assert len(gateway.asked) == 1
    assert await reasons(database, row.id) == [
        "accepted",
        "claimed",
        "lease_expired",
        "lease_expired",
        "gateway_approved",
    ]


async def test_two_workers_with_the_same_message_charge_once(database: Database, carrier: Carrier) -> None:
    rows = [accepted(NOW) for _ in range(20)]
    refs = await write(database, *rows)
    gateway = saying(APPROVED)
    async with (
        working(database, gateway, carrier, concurrency=20) as one,
        working(database, gateway, carrier, concurrency=20) as other,
    ):
        await asyncio.gather(one.processor.offer(refs), other.processor.offer(refs[::-1]))
        await settled(database, *rows)
    assert len(gateway.asked) == 20
    assert {payment.sequence for payment in await read_all(database)} == {3}


async def test_a_bug_with_one_payment_leaves_the_others_alone(database: Database, carrier: Carrier) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    broken = replace(rows[0], method={"type": "BARTER", "details": {}, "scenario": None})
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == broken.id).values(method=broken.method))
    async with working(database, saying(APPROVED), carrier) as hands:
        with capture_logs() as logs:
            await hands.offer(*rows)
            await settled(database, *rows[1:])
            await hands.idle()
    assert [line["payment_id"] for line in logs if line["event"] == "payment.crashed"] == [str(broken.id)]
    assert (await read(database, broken.id)).due_reason == "lease_expired"


# -- the database goes away


async def test_tickets_that_could_not_be_claimed_are_dropped_and_keep_no_slot(
    database: Database, carrier: Carrier
) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    shaky = Shaky(database)
    async with working(shaky, saying(APPROVED), carrier) as hands:
        shaky.is_away = True
        assert await hands.offer(*rows) == []
        assert hands.processor.free == 10
        shaky.is_away = False
        await hands.offer(*rows)
        await settled(database, *rows)


async def test_what_was_learned_is_recorded_when_the_database_is_back(database: Database, carrier: Carrier) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    shaky, gateway = Shaky(database), ScriptedGateway()
    async with working(shaky, gateway, carrier) as hands:
        await hands.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        shaky.is_away = True
        with capture_logs() as logs:
            gateway.opened.set()
            await eventually(lambda: [line["event"] for line in logs].count("group_commit.failed") > 1)
        assert {payment.status for payment in await read_all(database)} == {PaymentStatus.PROCESSING}
        shaky.is_away = False
        found = await settled(database, *rows)
    assert len(gateway.asked) == 3, "the gateway was asked again for what was known"
    assert {(payment.status, payment.attempt) for payment in found} == {("COMPLETED", 1)}


async def test_a_record_whose_commit_got_no_answer_is_written_once(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW, callback_url="https://shop.example/")
    await write(database, row)
    shaky, gateway = Shaky(database), ScriptedGateway()
    async with working(shaky, gateway, carrier) as hands:
        await hands.offer(row)
        await eventually(lambda: gateway.asked)
        shaky.commits_lost = 1
        gateway.opened.set()
        await settled(database, row)
        await hands.idle()
    assert len(gateway.asked) == 1
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]


async def test_a_claim_whose_commit_got_no_answer_is_left_to_its_lease(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    shaky, gateway = Shaky(database), saying(APPROVED)
    async with working(shaky, gateway, carrier) as hands:
        shaky.commits_lost = 1
        await hands.offer(row)
        assert hands.processor.free == 10
        assert gateway.asked == []
        lost = await read(database, row.id)
        assert (lost.attempt, lost.due_reason) == (1, "lease_expired")
        await hands.offer(lost)
        await settled(database, row)
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired", "gateway_approved"]


async def test_the_late_record_of_a_claim_that_was_lost_changes_nothing(database: Database, carrier: Carrier) -> None:
    """A worker that was paused past its lease wakes up when another has claimed the payment already."""
    row = accepted(NOW)
    await write(database, row)
    paused = ScriptedGateway([DECLINED])
    async with (
        working(database, paused, carrier) as sleeper,
        working(database, saying(APPROVED), carrier) as successor,
    ):
        await sleeper.offer(row)
        await eventually(lambda: paused.asked)
        await successor.offer(await read(database, row.id))  # the relay's ticket after the lease
        [payment] = await settled(database, row)
        with capture_logs() as logs:
            paused.opened.set()
            await sleeper.idle()
        assert "payment.claim_lost" in {line["event"] for line in logs}
        assert await read(database, row.id) == payment
    assert (payment.status, payment.attempt) == ("COMPLETED", 2)
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired", "gateway_approved"]


# -- stopping


async def test_stopping_waits_for_the_gateway_and_records_its_answers(database: Database, carrier: Carrier) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier) as hands:
        await hands.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        stopping = asyncio.create_task(hands.processor.stop(60))
        await eventually(lambda: hands.processor.free == 0)
        assert not stopping.done()
        gateway.opened.set()
        async with asyncio.timeout(10):
            await stopping
            await hands.run
    assert {payment.status for payment in await read_all(database)} == {PaymentStatus.COMPLETED}
    assert {payment.attempt for payment in await read_all(database)} == {1}


async def test_what_the_gateway_does_not_answer_in_time_is_released_at_once(
    database: Database, carrier: Carrier
) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier) as hands:
        await hands.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        async with asyncio.timeout(10):
            await hands.processor.stop(0.01)
            await hands.run
        assert await hands.offer(*rows) == [row.ref for row in rows]
    for row in rows:
        payment = await read(database, row.id)
        assert (payment.status, payment.due_reason, payment.attempt) == ("PROCESSING", "released", 1)
        assert payment.due_at is not None
        assert payment.due_at <= datetime.now(UTC)
    await hands.publisher.run_once()
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == [Ref(row.id, 1) for row in rows]
    async with working(database, saying(APPROVED), carrier) as successor:
        await successor.offer(*[await read(database, row.id) for row in rows])
        await settled(database, *rows)
    for row in rows:
        assert await reasons(database, row.id) == ["accepted", "claimed", "released", "gateway_approved"]


async def test_a_charge_that_a_release_interrupted_is_found_and_not_made_again(
    database: Database, carrier: Carrier
) -> None:
    """The gateway had booked the money when this worker let go of the payment."""
    row = accepted(NOW)
    await write(database, row)
    slow = asyncio.Event()

    async def nap(_seconds: float) -> None:
        if await books(database, row.id) == ["authorize", "capture"]:
            await slow.wait()

    async with simulated(database, sleep=nap) as gateway, working(database, gateway, carrier) as hands:
        await hands.offer(row)
        await eventually(lambda: books(database, row.id), timeout_s=10)
        await hands.processor.stop(0.5)
    assert (await read(database, row.id)).due_reason == "released"
    async with simulated(database) as gateway, working(database, gateway, carrier) as successor:
        await successor.offer(await read(database, row.id))
        await settled(database, row)
    assert await books(database, row.id) == ["authorize", "capture"]
    await assert_sound(database)


async def test_stopping_an_idle_processor_or_one_that_never_ran_takes_no_time(
    database: Database, carrier: Carrier
) -> None:
    async with asyncio.timeout(5):
        async with working(database, saying(APPROVED), carrier) as hands:
            await hands.processor.stop(60)
            await hands.run
        unused = Processor(database, saying(APPROVED), hands.publisher, hands.processor._rules)
        assert unused.free == 0
        assert await unused.offer([Ref(accepted(NOW).id, 0)]) != []
        await unused.stop(60)


async def test_when_its_group_fails_with_payments_in_the_gateway_the_processor_ends_at_once(
    database: Database, carrier: Carrier
) -> None:
    """A worker whose relay has died must not hang on in its payments: their leases end."""
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with working(database, gateway, carrier) as hands:
        await hands.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        hands.run.cancel()
        _done, pending = await asyncio.wait([hands.run], timeout=5)
        assert not pending, "it hangs"
        assert hands.run.cancelled()
        assert hands.processor.free == 0


async def test_an_offer_that_is_cancelled_keeps_no_slot(database: Database, carrier: Carrier) -> None:
    """arq cancels a job that takes too long, for instance because the database hangs."""
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    async with working(database, saying(APPROVED), carrier) as hands:
        async with holding_the_database(database):
            offer = asyncio.create_task(hands.offer(*rows))
            await eventually(lambda: hands.processor.free == 7)
            offer.cancel()
            await asyncio.wait([offer])
        await hands.idle()
    assert offer.cancelled()


@asynccontextmanager
async def simulated(database: Database, **changes: Any) -> AsyncIterator[SimulatedGateway]:
    """The simulated gateway, which approves unless a scenario says otherwise, without delay."""
    ledger = Ledger(database, batch_max=100, queue_max=1000)
    run = asyncio.create_task(ledger.run())
    values = {"success_rate": 1.0, "delay_min_ms": 0, "delay_max_ms": 0, **changes}
    try:
        yield SimulatedGateway(ledger, **values)
    finally:
        ledger.close()
        await run


@asynccontextmanager
async def holding_the_database(database: Database, *which: ColumnElement[bool]) -> AsyncIterator[None]:
    """Every payment (PostgreSQL: of those in question) is locked until the block ends."""
    async with database.transaction() as connection:
        await connection.execute(select(payments).where(*which).with_for_update())
        yield
