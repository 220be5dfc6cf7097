"""A database in a loop of its own with a clock that a test sets, for tests that are no coroutines."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.schema import metadata
from shared.database.tables import columns_of, deliveries, delivery_attempts, payment_methods, payments
from shared.idempotency import KeyRequest
from shared.ids import new_id
from shared.payments.find import Visible
from shared.payments.intent import Intent
from shared.payments.usable_methods import MethodRules
from shared.service_time import REAL, ServiceTime
from shared.webhooks.attempts import AttemptOutcome, DeliveryAttempt
from shared.webhooks.deliveries import ClaimedDelivery
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
# What the gateway makes of a payment is decided by its amount.
APPROVED_AMOUNT, DECLINED_AMOUNT = 100, 102
METHOD_ID = UUID(int=1)


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.moment = NOW

    async def now(self, _connection: AsyncConnection) -> datetime:
        return self.moment

    def real_now(self) -> datetime:
        return self.moment

    @property
    def time(self) -> ServiceTime:
        return REAL


class Harness:
    """A database in a loop of its own, and a gateway over it that takes no time."""

    def __init__(self, configured: Settings) -> None:
        self._runner = asyncio.Runner()
        self.clock = SetClock()
        self.database = open_database(configured, clock=self.clock)
        self.ledger = Ledger(self.database, batch_max=10, queue_max=10)
        self.gateway = SimulatedGateway(
            self.ledger, success_rate=1, failure_scenarios=True, delay_min_ms=0, delay_max_ms=0
        )

    def __enter__(self) -> Self:
        self._writing = self._runner.get_loop().create_task(self.ledger.run())
        return self

    def __exit__(self, *_error: object) -> None:
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        self.ledger.close()
        await self._writing
        await self.database.dispose()

    def run[T](self, work: Awaitable[T]) -> T:
        """Return what `work` comes to."""

        async def awaited() -> T:
            return await work

        return self._runner.run(awaited())

    def write[T](self, verb: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return what `verb` answers in a transaction of its own."""

        async def transact() -> T:
            async with self.database.transaction() as connection:
                return await verb(connection)

        return self._runner.run(transact())

    def empty(self) -> None:
        """Begin anew: without any row but a payment method, at `NOW`."""

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


RULES = MethodRules(scenarios={}, has_workers_of_0_1=lambda: False)


def new_intent(order_id: str, key: str | None, amount: int) -> Intent:
    """Return a request of user 1, with an idempotency key or without one."""
    payment_id = new_id()
    return Intent(
        id=payment_id,
        user_id="1",
        created_by="user:1",
        visible=Visible(user_id="1"),
        order_id=order_id,
        payment_method_id=METHOD_ID,
        amount=amount,
        currency="USD",
        description=None,
        metadata={},
        callback_url="https://shop.example/",
        correlation_id=None,
        idempotency=KeyRequest("user:1 /payments", key, f"{order_id} {amount}", payment_id) if key else None,
    )


def new_attempt(claimed: ClaimedDelivery, outcome: AttemptOutcome) -> DeliveryAttempt:
    """Return an attempt with this outcome, to which nothing was answered."""
    return DeliveryAttempt(
        delivery=claimed, outcome=outcome, duration_ms=1, status_code=None, error=None, response_body=b""
    )


type Rows = dict[UUID, tuple[object, ...]]


async def moving_columns(database: Database) -> tuple[Rows, Rows]:
    """Return what the verbs move of every payment and of every delivery."""
    async with database.read() as connection:
        found = [await connection.execute(select(*columns_of(table))) for table in (payments, deliveries)]
    of_payment = ("status", "sequence", "lease_version", "gateway_tries", "due_at")
    of_delivery = ("status", "lease_version", "retries", "attempts_total", "due_at")
    first, second = (
        {row["id"]: tuple(row[name] for name in names) for row in rows.mappings()}
        for rows, names in zip(found, (of_payment, of_delivery), strict=True)
    )
    return first, second


async def attempts_logged(database: Database) -> dict[UUID, int]:
    """Count the attempts in the log of each delivery that has one."""
    async with database.read() as connection:
        counted = select(delivery_attempts.c.delivery_id, func.count()).group_by(delivery_attempts.c.delivery_id)
        return {row[0]: row[1] for row in await connection.execute(counted)}
