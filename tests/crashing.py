"""One payment from its intent to its webhook in a process of its own, which kills itself between two of its steps.

A boundary is every moment before a statement or a COMMIT is sent, and the one after a COMMIT was answered. They are
counted as they come, so a new statement is a new boundary by itself.
"""

import asyncio
import os
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.config import Settings
from shared.deliveries import ClaimedDelivery
from shared.leases import Ref
from shared.queue import Carrier, Publisher, Queue
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
    sends_at_once: bool  # whoever records the payment sends its webhook, or somebody claims that
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
    outbox = Outbox(runtime.carrier, has_room=journey.sends_at_once)
    await _process(runtime, Ref(payment_id, 0), outbox)
    boundaries.step = "deliver"
    await _deliver(runtime, outbox)
    await runtime.close()
    told.send(boundaries.passed)


class Outbox(Publisher):
    """Keeps the deliveries of the payment until their turn: claimed if it has room, else their tickets."""

    lease_s = LEASE_S

    def __init__(self, carrier: Carrier, *, has_room: bool) -> None:
        super().__init__(carrier)
        self.has_room = has_room
        self.tickets: list[Ref] = []
        self.claimed: list[ClaimedDelivery] = []
        self.claimed_at = 0.0

    def publish(self, queue: Queue, refs: Iterable[Ref]) -> None:
        self.tickets += refs if queue is Queue.DELIVER else ()

    def take_over(self, claimed: Sequence[ClaimedDelivery], claimed_at: float) -> None:
        self.claimed += claimed
        self.claimed_at = claimed_at


async def _process(runtime: Runtime, ref: Ref, outbox: Outbox) -> None:
    """Return when the payment is recorded and its deliveries are in the outbox."""
    ledger = Ledger(runtime.database, batch_max=10, queue_max=10)
    gateway = SimulatedGateway(ledger, success_rate=1, delay_min_ms=0, delay_max_ms=0)
    rules = Rules(
        concurrency=10, lease_s=LEASE_S, max_claims=5, gateway_tries_max=3, gateway_backoff_s=1, is_seeded=False
    )
    processor = Processor(runtime.database, gateway, outbox, rules, sender=outbox)
    async with asyncio.TaskGroup() as parts:
        parts.create_task(ledger.run())
        parts.create_task(processor.run())
        await eventually(lambda: processor.free)
        await processor.offer([ref])
        await eventually(lambda: outbox.tickets or outbox.claimed, STEP_S)
        await processor.stop(STEP_S)
        ledger.close()


async def _deliver(runtime: Runtime, outbox: Outbox) -> None:
    deliverer = Deliverer(runtime.database, runtime.vault, runtime.settings, version="tests")
    async with asyncio.TaskGroup() as parts:
        parts.create_task(deliverer.run())
        await eventually(lambda: deliverer.has_room)
        await deliverer.offer(outbox.tickets)
        deliverer.take_over(outbox.claimed, outbox.claimed_at)
        await eventually(lambda: deliverer.queued == deliverer.in_flight == 0)
        await deliverer.stop(STEP_S)
