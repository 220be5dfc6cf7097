"""The record of a payment and what follows its commit, with a database that fails on demand; on both databases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from structlog.testing import capture_logs

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.lifecycle import PaymentStatus
from shared.webhooks.deliveries import ClaimedDelivery
from tests.support.messages import items_in
from tests.support.processing import (
    APPROVED,
    DECLINED,
    NOW,
    ScriptedGateway,
    UnreliableDatabase,
    gateway_answering,
    processing,
    settled,
)
from tests.support.rows import accepted, read, read_all, reasons, write
from tests.support.waiting import eventually

CALLBACK_URL = "https://shop.example/"

# -- the database goes away


async def test_what_was_learned_is_recorded_when_the_database_is_back(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    unreliable, gateway = UnreliableDatabase(database), ScriptedGateway()
    async with processing(unreliable, gateway, broker) as worker:
        await worker.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        unreliable.is_away = True
        with capture_logs() as logs:
            gateway.opened.set()
            await eventually(lambda: [line["event"] for line in logs].count("group_commit.failed") > 1)
        assert {payment.status for payment in await read_all(database)} == {PaymentStatus.PROCESSING}
        unreliable.is_away = False
        found = await settled(database, *rows)
    assert len(gateway.asked) == 3, "the gateway was asked again for what was known"
    assert {(payment.status, payment.lease_version) for payment in found} == {("COMPLETED", 1)}


async def test_a_record_whose_commit_got_no_answer_is_written_once(database: Database, broker: Broker) -> None:
    row = accepted(NOW, callback_url=CALLBACK_URL)
    await write(database, row)
    unreliable, gateway = UnreliableDatabase(database), ScriptedGateway()
    async with processing(unreliable, gateway, broker) as worker:
        await worker.offer(row)
        await eventually(lambda: gateway.asked)
        with capture_logs() as logs:
            unreliable.commits_lost = 1
            gateway.opened.set()
            await settled(database, row)
            # The second try finds that the first one has settled the payment.
            await eventually(lambda: "payment.claim_lost" in {line["event"] for line in logs})
        await worker.finish()
    assert len(gateway.asked) == 1
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]


async def test_the_late_record_of_a_claim_that_was_lost_changes_nothing(database: Database, broker: Broker) -> None:
    """A worker that was paused past its lease wakes up when another has claimed the payment already."""
    row = accepted(NOW)
    await write(database, row)
    paused = ScriptedGateway([DECLINED])
    async with (
        processing(database, paused, broker) as sleeper,
        processing(database, gateway_answering(APPROVED), broker) as successor,
    ):
        await sleeper.offer(row)
        await eventually(lambda: paused.asked)
        # As the relay brings it after the lease.
        await successor.offer(await read(database, row.id))
        [payment] = await settled(database, row)
        with capture_logs() as logs:
            paused.opened.set()
            await sleeper.finish()
        assert "payment.claim_lost" in {line["event"] for line in logs}
        assert sleeper.processor.settled == 0
        assert await read(database, row.id) == payment
    assert (payment.status, payment.lease_version) == ("COMPLETED", 2)
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired", "gateway_approved"]


# -- after the commit


@dataclass
class RecordingSender:
    """Keeps the deliveries that it is given, as if it sent them."""

    has_capacity: bool = True
    lease_s: float = 30.0
    leased: list[ClaimedDelivery] = field(default_factory=list)
    leased_at: list[float] = field(default_factory=list)

    def send_leased(self, deliveries: Sequence[ClaimedDelivery], leased_at: float) -> None:
        self.leased += deliveries
        self.leased_at.append(leased_at)


async def test_a_settled_payment_ends_long_polls_and_its_delivery_is_published(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW, callback_url=CALLBACK_URL)
    await write(database, row)
    async with processing(database, gateway_answering(APPROVED), broker) as worker:
        await worker.offer(row)
        await eventually(lambda: worker.processor.settled == 1)
    async with broker.subscribe_settled() as subscription:
        await worker.publisher.run_once()
        assert await eventually(lambda: subscription.next_ids(timeout_s=1)) == [row.id]
    assert len(await items_in(broker, Queue.DELIVER)) == 1


async def test_a_sender_with_capacity_is_given_the_delivery_leased_and_the_queue_is_not(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW, callback_url=CALLBACK_URL)
    await write(database, row)
    sender = RecordingSender()
    before = monotonic()
    async with processing(database, gateway_answering(APPROVED), broker, sender=sender) as worker:
        await worker.offer(row)
        await eventually(lambda: worker.processor.settled == 1)
        await worker.publisher.run_once()
    assert [(delivery.url, delivery.lease_version) for delivery in sender.leased] == [(CALLBACK_URL, 1)]
    [leased_at] = sender.leased_at
    assert before <= leased_at <= monotonic()
    assert await items_in(broker, Queue.DELIVER) == []


async def test_a_sender_without_capacity_is_given_nothing_and_the_delivery_is_published(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW, callback_url=CALLBACK_URL)
    await write(database, row)
    sender = RecordingSender(has_capacity=False)
    async with processing(database, gateway_answering(APPROVED), broker, sender=sender) as worker:
        await worker.offer(row)
        await eventually(lambda: worker.processor.settled == 1)
        await worker.publisher.run_once()
    assert sender.leased == []
    assert [item.lease_version for item in await items_in(broker, Queue.DELIVER)] == [0]
