"""How a worker ends: when it is told to, when a part of it dies, and when it cannot start."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from api.main import listen
from shared.broker.client import Broker, Queue
from shared.errors import ConfigurationError
from tests.support.messages import items_in
from tests.support.pipelines import MakeSettings, opened, processing, slow_gateway, worker
from tests.support.rows import accepted, are_settled, read_all, write
from tests.support.waiting import eventually
from worker.main import WorkerProcess


async def test_stopping_finishes_what_is_in_the_gateway_and_leaves_the_rest_in_the_queue(
    make_settings: MakeSettings,
) -> None:
    settings = slow_gateway(make_settings)
    async with opened(settings) as runtime:
        items = await write(runtime.database, *(accepted(datetime.now(UTC)) for _ in range(25)))
        process, stop = WorkerProcess(runtime), asyncio.Event()
        working = asyncio.create_task(process.run(stop))
        await runtime.broker.publish(Queue.PROCESS, items)
        await eventually(lambda: process.processor.in_gateway == 10)
        began = await processing(runtime.database)
        stop.set()
        async with asyncio.timeout(20):
            await working
        found = await read_all(runtime.database)
        assert {payment.id for payment in found if payment.status == "COMPLETED"} >= began
        assert {payment.status.value for payment in found} == {"COMPLETED", "PENDING"}
        waiting = {item.id for item in await items_in(runtime.broker, Queue.PROCESS)}
        assert waiting == {payment.id for payment in found if payment.status == "PENDING"}
        async with worker(runtime):
            await eventually(lambda: are_settled(runtime.database, 25), timeout_s=30)
        assert {payment.lease_version for payment in await read_all(runtime.database)} == {1}


class Broken(Broker):
    """A broker with a bug that shows when the relay asks whether Redis answers."""

    def __init__(self, whole: Broker) -> None:
        super().__init__(whole.arq_connection)
        self.is_broken = False

    async def probe(self) -> bool:
        if self.is_broken:
            raise KeyError("a bug of ours")
        return await super().probe()


async def test_a_part_that_dies_takes_the_worker_with_it_also_with_payments_in_the_gateway(
    make_settings: MakeSettings,
) -> None:
    """No worker stays that looks alive and takes nothing: it ends, another is started, and leases end."""
    settings = slow_gateway(
        make_settings, payment_processing_delay_min=20_000, payment_processing_delay_max=20_000, lease_s=31
    )
    async with opened(settings) as sound:
        broker = Broken(sound.broker)
        runtime = replace(sound, broker=broker)
        items = await write(runtime.database, *(accepted(datetime.now(UTC)) for _ in range(15)))
        await broker.publish(Queue.PROCESS, items)
        process = WorkerProcess(runtime)
        working = asyncio.create_task(process.run(asyncio.Event()))
        await eventually(lambda: process.processor.in_gateway == 10)
        broker.is_broken = True
        await asyncio.wait([working], timeout=10)
        assert working.done(), "it hangs"
        error = working.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(KeyError) is not None
        for payment in await read_all(runtime.database):
            assert payment.due_at is not None
            assert payment.due_reason in {"claimed", "lease_expired"}


async def test_a_metrics_port_that_is_taken_stops_the_start_with_its_name(make_settings: MakeSettings) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(metrics_port=taken.getsockname()[1])
        async with opened(settings) as runtime:
            with pytest.raises(ConfigurationError, match="METRICS_PORT"):
                await WorkerProcess(runtime).run(asyncio.Event())
