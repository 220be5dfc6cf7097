"""What the tests of survival share: services in processes of their own, and what must hold when they are done.

Its fixtures are in `tests.support.survival_fixtures`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.tables import gateway_ledger, payments
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.rows import are_settled, assert_sound, read_all, reasons
from tests.support.waiting import eventually

type MakeSettings = Callable[..., Settings]

# Generous: half a minute is what the relay may take to publish again.
SETTLED_S = 90.0

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@dataclass
class Service:
    """Processes that work together, and a client with a card."""

    api: PaymentsProcess
    workers: list[PaymentsProcess]
    shop: Shop

    def count(self, event: str) -> int:
        """How often the workers logged it."""
        return sum(len(worker.lines(event)) for worker in self.workers)


@asynccontextmanager
async def a_service(settings: Settings, folder: Path, *, workers: int = 2) -> AsyncIterator[Service]:
    """An API and workers, none of which may end before the block does."""
    api = PaymentsProcess("api", folder / "api", settings)
    worker_processes = [PaymentsProcess("worker", folder / f"worker-{number}", settings) for number in range(workers)]
    with processes(api, *worker_processes):
        for process in (api, *worker_processes):
            await process.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            yield Service(api, worker_processes, shop)
        for process in (api, *worker_processes):
            assert process.is_running, f"{process.command} ended: {process.errors}"
            process.terminate()
        for process in (api, *worker_processes):
            assert await process.ended() == 0
            assert process.errors == ""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    database = open_database(settings)
    try:
        yield database
    finally:
        await database.dispose()


async def statuses(database: Database) -> list[str]:
    return [payment.status.value for payment in await read_all(database)]


async def all_reasons(database: Database) -> set[str]:
    return {reason for payment in await read_all(database) for reason in await reasons(database, payment.id)}


async def is_processing(database: Database) -> bool:
    return "PROCESSING" in await statuses(database)


async def charged_but_not_recorded(database: Database) -> int:
    """Payments that the gateway has charged without their worker having written that down."""
    async with database.read() as connection:
        found = await connection.execute(
            select(payments.c.id)
            .join(gateway_ledger, gateway_ledger.c.payment_id == payments.c.id)
            .where(payments.c.status == "PROCESSING", gateway_ledger.c.kind.in_(["capture", "sale", "decline"]))
        )
        return len(found.all())


async def everything_settles(database: Database, count: int) -> None:
    await eventually(lambda: are_settled(database, count), SETTLED_S)
    await assert_sound(database)


async def everything_ends(database: Database) -> None:
    """All that was accepted ends, whose number only the database knows."""
    await eventually(lambda: are_all_settled(database), SETTLED_S)
    await assert_sound(database)


async def are_all_settled(database: Database) -> bool:
    return all(payment.status.has_ended for payment in await read_all(database))
