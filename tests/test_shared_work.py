"""Several workers share the work, and none takes more than it has slots for."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared.broker.client import Queue
from shared.database.engine import Database
from tests.support.pipelines import MakeSettings, opened, processing, slow_gateway, worker
from tests.support.rows import accepted, are_settled, assert_sound, read, read_all, write
from tests.support.waiting import eventually
from worker.main import WorkerProcess


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_workers_share_the_work_and_none_takes_more_than_its_slots(make_settings: MakeSettings) -> None:
    settings = slow_gateway(make_settings)
    async with opened(settings) as one, opened(settings) as other, worker(one) as left, worker(other) as right:

        async def all_settled() -> bool:
            assert max(left.processor.in_gateway, right.processor.in_gateway) <= 10
            return await are_settled(one.database, 60)

        items = await write(one.database, *(accepted(datetime.now(UTC)) for _ in range(60)))
        for start in range(0, 60, 20):
            await one.broker.publish(Queue.PROCESS, items[start : start + 20])
        await eventually(all_settled, timeout_s=60)
        await assert_sound(one.database)
        assert {payment.lease_version for payment in await read_all(one.database)} == {1}
    shares = sorted((left.processor.settled, right.processor.settled))
    assert sum(shares) == 60
    assert shares[1] - shares[0] <= 0.25 * 30, shares


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_full_worker_leaves_payments_to_others(make_settings: MakeSettings) -> None:
    """Ten payments keep the first worker busy; the eleventh is taken by the second long before a slot is free."""
    settings = slow_gateway(
        make_settings, payment_processing_delay_min=20_000, payment_processing_delay_max=20_000, lease_s=31
    )
    quick = settings.model_copy(update={"payment_processing_delay_min": 0, "payment_processing_delay_max": 0})
    async with opened(settings) as one, opened(quick) as other:
        items = await write(one.database, *(accepted(datetime.now(UTC)) for _ in range(11)))
        full, stop = WorkerProcess(one), asyncio.Event()
        working = asyncio.create_task(full.run(stop))
        await one.broker.publish(Queue.PROCESS, items)
        await eventually(lambda: full.processor.in_gateway == 10)
        [leftover] = {item.id for item in items} - await processing(one.database)
        async with worker(other):
            await eventually(lambda: is_completed(other.database, leftover))
        assert full.processor.in_gateway == 10
        working.cancel()
        await asyncio.wait([working], timeout=10)
        assert working.done()


async def is_completed(database: Database, payment_id: UUID) -> bool:
    return (await read(database, payment_id)).status == "COMPLETED"
