"""One payment from its intent to its webhook in a process of its own, which kills itself between two of its steps.

A boundary is every moment before a statement or a COMMIT is sent, and the one after a COMMIT was answered. They are
counted as they come, so a new statement is a new boundary by itself.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.broker.client import Broker, Queue
from shared.broker.publisher import Publisher
from shared.config.settings import Settings
from shared.database.clock import DatabaseClock
from shared.database.engine import open_database
from shared.database.leases import WorkItem
from shared.runtime import Runtime, open_runtime
from shared.webhooks.deliveries import ClaimedDelivery
from tests.support.api_client import opened
from tests.support.processes import END_S, forked
from tests.support.waiting import eventually
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway
from worker.main import open_pool
from worker.payments.charge import Charger
from worker.processor import Processor
from worker.refunds.repay import Repayer
from worker.rules import ChargeRules

TABLE = re.compile(r"(?:FROM|INTO|UPDATE)\s+(\w+)")
STEP_S = 20.0
LEASE_S = 30.0
NEVER = -1


@dataclass(frozen=True, slots=True)
class Journey:
    """What the process is to do, and the number of the boundary at which it dies."""

    settings: Settings
    # The body of the payment intent, and its idempotency key.
    body: dict[str, Any]
    key: str
    # The record inserts the delivery already leased; otherwise the delivery is claimed afterwards.
    sends_at_once: bool
    dies_at: int = NEVER


@dataclass(slots=True)
class Boundaries:
    """The boundaries that the process has passed, in the words of a reader."""

    dies_at: int
    step: str = ""
    passed: list[str] = field(default_factory=list)

    def watch(self, engine: AsyncEngine) -> None:
        """Count the boundaries of this engine from now on."""

        def statement(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
            table = TABLE.search(sql)
            self.reach(f"before {sql.split(maxsplit=1)[0]}{f' {table[1]}' if table else ''}")

        def commit(_connection: Any) -> None:
            self.reach("before COMMIT")

        def checkin(*_connection: Any) -> None:
            self.reach("after the transaction")

        event.listen(engine.sync_engine, "before_cursor_execute", statement)
        event.listen(engine.sync_engine, "commit", commit)
        # The connection comes back to the pool: COMMIT was answered.
        event.listen(engine.sync_engine, "checkin", checkin)

    def reach(self, what: str) -> None:
        """Pass a boundary, or die there."""
        if len(self.passed) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed.append(f"{self.step}: {what}")


def run_journey(journey: Journey, reports: Connection) -> None:
    """Do what the process is for; send the payment's id once it is accepted, and at the end all boundaries."""
    asyncio.run(_run_journey(journey, reports))


async def _run_journey(journey: Journey, reports: Connection) -> None:
    runtime = open_runtime(journey.settings)
    boundaries = Boundaries(journey.dies_at)
    # On purpose: every statement of the process passes here, also those of transactions that no test knows.
    boundaries.watch(runtime.database._engine)
    boundaries.step = "accept"
    async with opened(runtime) as running_api, running_api.user() as client:
        answer = await client.post("/payments", json=journey.body, headers={"Idempotency-Key": journey.key})
        payment_id = UUID(answer.raise_for_status().json()["id"])
    reports.send(str(payment_id))
    boundaries.step = "claim, charge, record"
    outbox = Outbox(runtime.broker, has_capacity=journey.sends_at_once)
    await process(runtime, WorkItem(payment_id, 0), outbox)
    boundaries.step = "deliver"
    await _deliver(runtime, outbox)
    await runtime.close()
    reports.send(boundaries.passed)


class Outbox(Publisher):
    """Keeps the deliveries of the payment until the process delivers: leased if it has capacity, else as items."""

    lease_s = LEASE_S

    def __init__(self, broker: Broker, *, has_capacity: bool) -> None:
        super().__init__(broker)
        self.has_capacity = has_capacity
        self.items: list[WorkItem] = []
        self.leased: list[ClaimedDelivery] = []
        self.leased_at = 0.0

    def publish(self, queue: Queue, items: Iterable[WorkItem]) -> None:
        self.items += items if queue is Queue.DELIVER else ()

    def send_leased(self, deliveries: Sequence[ClaimedDelivery], leased_at: float) -> None:
        self.leased += deliveries
        self.leased_at = leased_at


async def process(
    runtime: Runtime,
    item: WorkItem,
    outbox: Outbox,
    *,
    queue: Queue = Queue.PROCESS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Process a payment or refund until it is recorded and the deliveries of its events are in the outbox."""
    ledger = Ledger(runtime.database, batch_max=10, queue_max=10)
    gateway = SimulatedGateway(ledger, success_rate=1, delay_min_ms=1, delay_max_ms=1, sleep=sleep)
    rules = ChargeRules(max_claims=5, gateway_tries_max=3, gateway_backoff_s=1)
    processor = Processor(
        runtime.database,
        Charger(gateway, rules),
        outbox,
        repayer=Repayer(gateway, rules),
        concurrency=10,
        lease_s=LEASE_S,
        sender=outbox,
    )
    async with asyncio.TaskGroup() as parts:
        parts.create_task(ledger.run())
        parts.create_task(processor.run())
        await eventually(lambda: processor.free)
        await processor.offer([item], queue)
        # What was begun ends first.
        await processor.stop(STEP_S)
        ledger.close()


async def _deliver(runtime: Runtime, outbox: Outbox) -> None:
    """Deliver what is in the outbox."""
    pool = open_pool(runtime)
    async with asyncio.TaskGroup() as parts:
        parts.create_task(pool.run())
        await eventually(lambda: pool.has_capacity)
        await pool.offer(outbox.items)
        pool.send_leased(outbox.leased, outbox.leased_at)
        await eventually(lambda: pool.queued == pool.in_flight == 0)
        await pool.stop(STEP_S)


# -- from the outside

# A slow process asks for the time once more than a fast one, so the last boundaries of one are not there in another.
UNREACHED_MAX = 2


def assert_each_died(codes: Sequence[int | None]) -> None:
    """Each process, in the order of the boundaries, died at its own; the last ones may have ended before theirs."""
    died = [code for code in codes if code == -signal.SIGKILL]
    unreached = len(codes) - len(died)
    assert unreached <= UNREACHED_MAX, codes
    assert list(codes) == died + [0] * unreached, codes


class LaterClock(DatabaseClock):
    """A clock under which every lease of the killed processes is over."""

    async def now(self, connection: AsyncConnection) -> datetime:
        return await super().now(connection) + timedelta(seconds=2 * LEASE_S)

    def real_now(self) -> datetime:
        return super().real_now() + timedelta(seconds=2 * LEASE_S)


@asynccontextmanager
async def later(settings: Settings) -> AsyncIterator[Runtime]:
    """The runtime of the recovery: the same database and Redis, when the leases are over."""
    runtime = open_runtime(settings)
    await runtime.database.dispose()
    runtime = replace(runtime, database=open_database(settings, clock=LaterClock()))
    yield runtime
    await runtime.close()


async def run_to_end[J](target: Callable[[J, Connection], None], journey: J) -> tuple[int, list[Any]]:
    """Run a journey in a process; return its exit code, and what it had reported until then."""
    reports, sender = Pipe(duplex=False)
    process = forked(target, journey, sender)
    sender.close()
    await eventually(lambda: process.exitcode is not None, END_S)
    received: list[Any] = []
    with reports:
        while reports.poll():
            try:
                received.append(reports.recv())
            except EOFError:
                break
    assert process.exitcode is not None
    return process.exitcode, received
