"""A processor that stops: what is in the gateway is finished or released, and nothing hangs; on both databases."""

import asyncio
from datetime import UTC, datetime

from structlog.testing import capture_logs

from shared.broker.client import Broker, Queue
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.lifecycle import PaymentStatus
from shared.payments.outcomes import GatewayAnswer
from shared.payments.payment import Payment
from tests.support.messages import items_in
from tests.support.processing import (
    APPROVED,
    NOW,
    UNKNOWN,
    ScriptedGateway,
    gateway_answering,
    locked_payments,
    new_processor,
    processing,
    settled,
    simulated_gateway,
)
from tests.support.rows import accepted, assert_sound, ledger_entries, read, read_all, reasons, write
from tests.support.waiting import eventually


async def test_stopping_waits_for_the_gateway_and_records_its_answers(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker) as worker:
        await worker.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        stopping = asyncio.create_task(worker.processor.stop(60))
        await eventually(lambda: worker.processor.free == 0)
        assert not stopping.done()
        gateway.opened.set()
        async with asyncio.timeout(10):
            await stopping
            await worker.run
    assert {payment.status for payment in await read_all(database)} == {PaymentStatus.COMPLETED}
    assert {payment.lease_version for payment in await read_all(database)} == {1}


async def test_what_the_gateway_does_not_answer_in_time_is_released_at_once(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker) as worker:
        await worker.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        async with asyncio.timeout(10):
            await worker.processor.stop(0.01)
            await worker.run
        assert worker.processor.in_gateway == 0
        assert await worker.offer(*rows) == [row.work_item for row in rows]
    for row in rows:
        payment = await read(database, row.id)
        assert (payment.status, payment.due_reason, payment.lease_version) == ("PROCESSING", "released", 1)
        assert payment.due_at is not None
        assert payment.due_at <= datetime.now(UTC)
    await worker.publisher.run_once()
    assert sorted(await items_in(broker, Queue.PROCESS)) == [WorkItem(row.id, 1) for row in rows]
    async with processing(database, gateway_answering(APPROVED), broker) as successor:
        await successor.offer(*[await read(database, row.id) for row in rows])
        await settled(database, *rows)
    for row in rows:
        assert await reasons(database, row.id) == ["accepted", "claimed", "released", "gateway_approved"]


async def test_a_claim_that_is_committed_after_the_interruption_is_released_unasked(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(APPROVED)
    async with processing(database, gateway, broker) as worker:
        with capture_logs() as logs:
            async with locked_payments(database):
                offer = asyncio.create_task(worker.offer(row))
                await eventually(lambda: worker.processor.free == 9)
                stopping = asyncio.create_task(worker.processor.stop(0))
                await eventually(lambda: "slots.interrupted" in {line["event"] for line in logs})
            async with asyncio.timeout(10):
                assert await offer == []
                await stopping
    assert gateway.asked == []
    payment = await read(database, row.id)
    assert (payment.status, payment.due_reason, payment.lease_version) == ("PROCESSING", "released", 1)


class InterruptedGateway(ScriptedGateway):
    """Takes the interruption of a charge for a lost answer, as a driver may that is cancelled within a call."""

    async def charge(self, payment: Payment) -> GatewayAnswer:
        try:
            return await super().charge(payment)
        except asyncio.CancelledError as error:
            raise UNKNOWN from error


async def test_a_payment_is_released_also_if_the_gateway_takes_the_interruption_for_an_error(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = InterruptedGateway()
    async with processing(database, gateway, broker) as worker:
        await worker.offer(row)
        await eventually(lambda: gateway.asked)
        async with asyncio.timeout(10):
            await worker.processor.stop(0)
    assert len(gateway.asked) == 1
    assert (await read(database, row.id)).due_reason == "released"


async def test_a_timeout_of_the_gateways_own_is_no_interruption(database: Database, broker: Broker) -> None:
    """Only the end of the grace releases a payment; after any other error its lease ends."""
    row = accepted(NOW)
    await write(database, row)
    async with processing(database, gateway_answering(TimeoutError("a bug")), broker) as worker:
        with capture_logs() as logs:
            await worker.offer(row)
            await eventually(lambda: worker.processor.free == 10)
        assert "payment.crashed" in {line["event"] for line in logs}
    assert (await read(database, row.id)).due_reason == "lease_expired"


async def test_a_charge_that_a_release_interrupted_is_found_and_not_made_again(
    database: Database, broker: Broker
) -> None:
    """The gateway had recorded the charge in its ledger when this worker released the payment."""
    row = accepted(NOW)
    await write(database, row)
    slow = asyncio.Event()

    async def nap(_seconds: float) -> None:
        if await ledger_entries(database, row.id) == ["authorize", "capture"]:
            await slow.wait()

    async with simulated_gateway(database, sleep=nap) as gateway, processing(database, gateway, broker) as worker:
        await worker.offer(row)
        await eventually(lambda: ledger_entries(database, row.id), timeout_s=10)
        await worker.processor.stop(0.5)
    assert (await read(database, row.id)).due_reason == "released"
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as successor:
        await successor.offer(await read(database, row.id))
        await settled(database, row)
    assert await ledger_entries(database, row.id) == ["authorize", "capture"]
    await assert_sound(database)


async def test_stopping_an_idle_processor_or_one_that_never_ran_takes_no_time(
    database: Database, broker: Broker
) -> None:
    async with asyncio.timeout(5):
        async with processing(database, gateway_answering(APPROVED), broker) as worker:
            await worker.processor.stop(60)
            await worker.run
        unused = new_processor(database, gateway_answering(APPROVED), Publisher(broker))
        assert unused.free == 0
        item = WorkItem(accepted(NOW).id, 0)
        assert await unused.offer([item]) == [item]
        await unused.stop(60)


async def test_when_its_group_fails_with_payments_in_the_gateway_the_processor_ends_at_once(
    database: Database, broker: Broker
) -> None:
    """A worker whose relay has died must not hang on in its payments: their leases end."""
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker) as worker:
        await worker.offer(*rows)
        await eventually(lambda: len(gateway.asked) == 3)
        worker.run.cancel()
        _done, pending = await asyncio.wait([worker.run], timeout=5)
        assert not pending, "it hangs"
        assert worker.run.cancelled()
        assert worker.processor.free == 0
