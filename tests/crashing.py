"""One payment from its intent to its webhook in a process of its own, which kills itself between two of its steps.

A boundary is every moment before a statement or a COMMIT is sent, and the one after a COMMIT was answered. They are
counted as they come, so a new statement is a new boundary by itself.
"""

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.config import Settings
from shared.leases import Ref
from shared.queue import Publisher
from shared.runtime import Runtime, open_runtime
from tests.api_client import opened
from tests.waiting import eventually
from worker.deliver import Deliverer
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway
from worker.process_payments import Processor, Rules

TABLE = re.compile(r"(?:FROM|INTO|UPDATE)\s+(\w+)")
STEP_S = 20.0
LEASE_S = 30.0
NEVER = -1


@dataclass(frozen=True, slots=True)
class Journey:
    """What the process is to do, and the number of the boundary at which it dies."""

    settings: Settings
    body: dict[str, Any]  # of the intent
    key: str  # of its idempotency
    dies_at: int = NEVER


@dataclass(slots=True)
class Boundaries:
    """The boundaries that the process has come past, in the words of a reader."""

    dies_at: int
    step: str = ""
    passed: list[str] = field(default_factory=list)

    def watch(self, engine: AsyncEngine) -> None:
        """Count from now on."""

        def statement(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
            table = TABLE.search(sql)
            self._pass(f"before {sql.split(maxsplit=1)[0]}{f' {table[1]}' if table else ''}")

        def commit(_connection: Any) -> None:
            self._pass("before COMMIT")

        def checkin(*_connection: Any) -> None:
            self._pass("after the transaction")

        event.listen(engine.sync_engine, "before_cursor_execute", statement)
        event.listen(engine.sync_engine, "commit", commit)
        event.listen(engine.sync_engine, "checkin", checkin)  # the connection comes back: COMMIT was answered

    def _pass(self, what: str) -> None:
        if len(self.passed) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed.append(f"{self.step}: {what}")


def travel(journey: Journey, told: Connection) -> None:
    """What the process does; tells the id of the payment once it is accepted, and at the end all boundaries."""
    asyncio.run(_travel(journey, told))


async def _travel(journey: Journey, told: Connection) -> None:
    runtime = open_runtime(journey.settings)
    boundaries = Boundaries(journey.dies_at)
    boundaries.watch(runtime.database._engine)
    boundaries.step = "accept"
    async with opened(runtime) as door, door.user() as client:
        answer = await client.post("/payments", json=journey.body, headers={"Idempotency-Key": journey.key})
        payment_id = UUID(answer.raise_for_status().json()["id"])
    told.send(str(payment_id))
    boundaries.step = "claim, charge, record"
    tickets = await _process(runtime, Ref(payment_id, 0))
    boundaries.step = "deliver"
    await _deliver(runtime, tickets)
    await runtime.close()
    told.send(boundaries.passed)


async def _process(runtime: Runtime, ref: Ref) -> Sequence[Ref]:
    """The tickets of the payment's deliveries, once it is recorded."""
    recorded: asyncio.Future[Sequence[Ref]] = asyncio.get_running_loop().create_future()
    ledger = Ledger(runtime.database, batch_max=10, queue_max=10)
    gateway = SimulatedGateway(ledger, success_rate=1, delay_min_ms=0, delay_max_ms=0)
    rules = Rules(
        concurrency=10, lease_s=LEASE_S, max_claims=5, gateway_tries_max=3, gateway_backoff_s=1, is_seeded=False
    )
    publisher = Publisher(runtime.carrier)
    processor = Processor(runtime.database, gateway, publisher, rules, deliver=recorded.set_result)
    async with asyncio.TaskGroup() as parts:
        parts.create_task(ledger.run())
        parts.create_task(processor.run())
        await eventually(lambda: processor.free)
        await processor.offer([ref])
        tickets = await asyncio.wait_for(recorded, STEP_S)
        await processor.stop(STEP_S)
        ledger.close()
    return tickets


async def _deliver(runtime: Runtime, tickets: Sequence[Ref]) -> None:
    deliverer = Deliverer(runtime.database, runtime.vault, runtime.settings, version="tests")
    async with asyncio.TaskGroup() as parts:
        parts.create_task(deliverer.run())
        await deliverer.offer(tickets)
        await eventually(lambda: deliverer.queued == deliverer.in_flight == 0)
        await deliverer.stop(STEP_S)
