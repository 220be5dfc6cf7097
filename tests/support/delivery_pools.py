"""A running delivery pool, and the rows of the deliveries that it sends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp.abc import AbstractResolver
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem, take_due
from shared.database.tables import deliveries
from shared.errors import DatabaseUnavailable
from shared.keyring import Keyring
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.deliveries import ClaimedDelivery
from tests.support.deliveries import attempts_of, rows_of
from tests.support.receivers import Endpoint, complete_and_lease, complete_payments, register
from tests.support.waiting import eventually
from worker.deliveries.attempt import AttemptMaker
from worker.deliveries.fair_queues import ITEMS_MAX
from worker.deliveries.pool import DeliveryPool, DeliveryRules

type MakeSettings = Callable[..., Settings]

USER_AGENT = "payments/tests"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def no_jitter() -> float:
    """Lengthen no wait."""
    return 0.0


def new_pool(
    database: Database,
    keyring: Keyring,
    settings: Settings,
    *,
    resolver: AbstractResolver | None = None,
    user_policy: AddressPolicy | None = None,
    queue_max: int = ITEMS_MAX,
    jitter: Callable[[], float] = no_jitter,
) -> DeliveryPool:
    """Return a pool with the limits of these settings; it sends nothing before `run`."""
    attempts = AttemptMaker(
        keyring, timeout_s=settings.webhook_timeout, schedule_s=settings.webhook_retry_schedule, jitter=jitter
    )
    rules = DeliveryRules(
        concurrency=settings.webhook_concurrency,
        concurrency_per_host=settings.webhook_concurrency_per_host,
        timeout_s=settings.webhook_timeout,
        lease_s=settings.webhook_lease_s,
        user_agent=USER_AGENT,
        queue_max=queue_max,
    )
    policy = AddressPolicy(settings.delivery_networks, settings.own_ports)
    return DeliveryPool(database, attempts, rules, policy, user_policy=user_policy, resolver=resolver)


@dataclass(slots=True)
class World:
    """A database with endpoints in it, and the means to look at its deliveries."""

    database: Database
    keyring: Keyring

    async def endpoint(self, url: str, **columns: Any) -> Endpoint:
        """Register an endpoint for the terminal events."""
        async with self.database.transaction() as connection:
            return await register(connection, self.keyring, url, now=datetime.now(UTC), **columns)

    async def pay(self, count: int = 1, *, callback_url: str | None = None) -> list[WorkItem]:
        """Complete payments; return the work items of their deliveries."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            return await complete_payments(connection, count, now=now, callback_url=callback_url)

    async def pay_and_lease(self, count: int = 1, *, lease_for_s: float = 30) -> list[ClaimedDelivery]:
        """Complete payments; return their deliveries, already leased."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            return await complete_and_lease(connection, count, now=now, lease_for_s=lease_for_s)

    async def relay(self, pool: DeliveryPool) -> None:
        """Offer the pool what is due, as one round of the worker's relay does."""
        async with self.database.transaction() as connection:
            now = await self.database.clock.now(connection)
            due = await take_due(connection, deliveries, now=now, limit=500)
        await pool.offer(list(due))

    async def rows(self, items: Sequence[WorkItem]) -> list[Any]:
        """Return the rows of these deliveries, in order."""
        return await rows_of(self.database, items)

    async def attempts(self, item: WorkItem) -> list[Any]:
        """Return what the log says of a delivery, in order."""
        return await attempts_of(self.database, item.id)

    async def until(self, status: str, items: Sequence[WorkItem], pool: DeliveryPool | None = None) -> list[Any]:
        """Wait until all have this status and return their rows; the pool is offered what becomes due meanwhile."""

        async def rows_if_so() -> list[Any]:
            if pool is not None:
                await self.relay(pool)
            rows = await self.rows(items)
            return rows if all(row.status == status for row in rows) else []

        return await eventually(rows_if_so)

    async def attempted(self, items: Sequence[WorkItem], times: int = 1) -> list[Any]:
        """Wait until each delivery has been attempted so often, and return the rows."""

        async def rows_if_so() -> list[Any]:
            rows = await self.rows(items)
            return rows if all(row.attempts_total == times for row in rows) else []

        return await eventually(rows_if_so)


@asynccontextmanager
async def running(
    world: World, settings: Settings, *, database: Database | None = None, **options: Any
) -> AsyncIterator[DeliveryPool]:
    """Run a pool until the block ends; see `new_pool` for the options."""
    pool = new_pool(database or world.database, world.keyring, settings, **options)
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run())
        try:
            yield pool
        finally:
            await pool.stop(grace_s=0)


async def end_leases(connection: AsyncConnection) -> None:
    """Let the lease of every delivery be over."""
    await connection.execute(update(deliveries).values(due_at=LONG_AGO))


class SwitchableDatabase(Database):
    """A database behind a switch: while it is off, it cannot be reached."""

    def __init__(self, real: Database) -> None:
        self.clock = real.clock
        self.is_sqlite = real.is_sqlite
        self.is_on = True
        self._real = real

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if not self.is_on:
            raise DatabaseUnavailable("switched off")
        async with self._real.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if not self.is_on:
            raise DatabaseUnavailable("switched off")
        async with self._real.read() as connection:
            yield connection
