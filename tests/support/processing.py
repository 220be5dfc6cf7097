"""A processor of payments that runs in the test's loop, with scripted answers of the gateway and the order service.

The database and the broker are real. Nothing here knows how the processor does its work.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker.client import Broker
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import payments
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.lifecycle import CaptureFailureCode, FailureCode, HistoryReason
from shared.payments.outcomes import Approved, Declined, GatewayAnswer, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund
from tests.support.rows import read
from tests.support.waiting import eventually
from worker.gateway.ledger import Ledger
from worker.gateway.protocol import Gateway, GatewayUnavailable, OutcomeUnknown
from worker.gateway.simulator import SimulatedGateway
from worker.orders import OrderCheck, OrderChecker
from worker.payments.charge import Charger
from worker.payments.recorder import Sender
from worker.processor import Processor
from worker.refunds.repay import Repayer
from worker.rules import ChargeRules

NOW = datetime.now(UTC).replace(microsecond=0)
APPROVED = Approved("stripe_mock", "ch_1", {"authorization_code": "A1B2C3"}, "rate")
DECLINED = Declined("stripe_mock", FailureCode.CARD_DECLINED, "The issuer declined the card.", {}, "card")
NOTHING_HAPPENED = GatewayUnavailable("rate")
UNKNOWN = OutcomeUnknown("no answer")
FINISH_S = 10.0


# -- the gateway and the order service


@dataclass
class ScriptedGateway:
    """Answers each charge with the next of `script`, of which the last stays; but not before `opened` is set."""

    script: list[GatewayAnswer | Exception] = field(default_factory=lambda: [APPROVED])
    # What `void_or_fetch` finds to be done already.
    on_record: GatewayAnswer | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    # The payments as they were when the gateway was asked to charge them.
    asked: list[Payment] = field(default_factory=list)
    voided: list[tuple[Payment, FailureCode]] = field(default_factory=list)
    refunded: list[Refund] = field(default_factory=list)
    # What was asked whether it is done already, and closed.
    closed: list[tuple[UUID, str]] = field(default_factory=list)

    async def charge(self, payment: Payment) -> GatewayAnswer:
        return await self._answer(payment)

    async def authorize(self, payment: Payment) -> GatewayAnswer:
        return await self._answer(payment)

    async def capture(self, payment: Payment) -> GatewayAnswer:
        return await self._answer(payment)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayAnswer:
        self.refunded.append(refund)
        return await self._answer(payment)

    async def void(self, payment: Payment) -> Voided | Approved:
        answer = await self._answer(payment)
        return answer if isinstance(answer, Approved) and self.on_record else Voided(answer.gateway or "")

    async def close_capture_or_fetch(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode
    ) -> GatewayAnswer:
        self.closed.append((payment.id, failure_code))
        return self.on_record or Declined("stripe_mock", failure_code, "Closed.", {}, "closed")

    async def close_refund_or_fetch(
        self,
        payment: Payment,  # noqa: ARG002 - the protocol's signature
        refund: Refund,
        failure_code: RefundFailureCode,
    ) -> GatewayAnswer:
        self.closed.append((refund.id, failure_code))
        return self.on_record or Declined("stripe_mock", failure_code, "Closed.", {}, "closed")

    async def _answer(self, payment: Payment) -> GatewayAnswer:
        self.asked.append(payment)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await self.opened.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def void_or_fetch(
        self, payment: Payment, failure_code: FailureCode = FailureCode.PROCESSING_ERROR
    ) -> GatewayAnswer:
        self.voided.append((payment, failure_code))
        return self.on_record or Declined("stripe_mock", failure_code, "Voided.", {}, "closed")


def gateway_answering(*script: GatewayAnswer | Exception, on_record: GatewayAnswer | None = None) -> ScriptedGateway:
    """Return a gateway that answers at once."""
    gateway = ScriptedGateway(list(script), on_record)
    gateway.opened.set()
    return gateway


@asynccontextmanager
async def simulated_gateway(database: Database, **changes: Any) -> AsyncIterator[SimulatedGateway]:
    """The simulated gateway, which approves unless a scenario says otherwise, without delay."""
    ledger = Ledger(database, batch_max=100, queue_max=1000)
    run = asyncio.create_task(ledger.run())
    values = {"success_rate": 1.0, "delay_min_ms": 0, "delay_max_ms": 0, **changes}
    try:
        yield SimulatedGateway(ledger, **values)
    finally:
        ledger.close()
        await run


@dataclass
class ScriptedOrders:
    """Answers each check with the next of `script`, of which the last stays; but not before `opened` is set."""

    script: list[OrderCheck | Exception]
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    checked: list[Payment] = field(default_factory=list)

    async def check(self, payment: Payment) -> OrderCheck:
        self.checked.append(payment)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await self.opened.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def orders_answering(*script: OrderCheck | Exception) -> ScriptedOrders:
    """Return an order service that answers at once."""
    orders = ScriptedOrders(list(script))
    orders.opened.set()
    return orders


# -- the processor


@dataclass
class RunningProcessor:
    """A processor that runs, and the task of its run."""

    processor: Processor
    publisher: Publisher
    run: asyncio.Task[None]

    async def offer(self, *offered: Payment) -> list[WorkItem]:
        """Offer payments as they are; return those left over."""
        return await self.processor.offer([payment.work_item for payment in offered])

    async def finish(self) -> None:
        """Stop the processor. Raises TimeoutError unless all its work ends by itself, its records too."""
        async with asyncio.timeout(FINISH_S):
            await self.processor.stop(2 * FINISH_S)


def new_processor(
    database: Database,
    gateway: Gateway,
    publisher: Publisher,
    *,
    orders: OrderChecker | None = None,
    sender: Sender | None = None,
    concurrency: int = 10,
    lease_s: float = 30,
    **rules: Any,
) -> Processor:
    """Return a processor that does not run yet; `rules` are changes of its `ChargeRules`."""
    defaults: dict[str, Any] = {"max_claims": 5, "gateway_tries_max": 3, "gateway_backoff_s": 1.0}
    charge_rules = ChargeRules(**{**defaults, **rules})
    return Processor(
        database,
        Charger(gateway, charge_rules, orders),
        publisher,
        repayer=Repayer(gateway, charge_rules),
        concurrency=concurrency,
        lease_s=lease_s,
        sender=sender,
    )


@asynccontextmanager
async def processing(
    database: Database, gateway: Gateway, broker: Broker, **options: Any
) -> AsyncIterator[RunningProcessor]:
    """A processor that runs until the block ends; `options` are those of `new_processor`."""
    publisher = Publisher(broker)
    processor = new_processor(database, gateway, publisher, **options)
    run = asyncio.create_task(processor.run())
    await eventually(lambda: processor.free)
    try:
        yield RunningProcessor(processor, publisher, run)
    finally:
        await processor.stop(0)
        await asyncio.wait([run])


# -- what becomes of payments


async def settled(database: Database, *rows: Payment) -> list[Payment]:
    """Return the payments, once all have ended."""

    async def all_ended() -> list[Payment]:
        found = [await read(database, row.id) for row in rows]
        return found if all(payment.status.has_ended for payment in found) else []

    return await eventually(all_ended)


async def due_again(database: Database, row: Payment, *, reason: HistoryReason) -> Payment:
    """Return the payment, once its claim has ended without settling it."""

    async def is_due() -> Payment | None:
        found = await read(database, row.id)
        return found if found.due_reason == reason else None

    found = await eventually(is_due)
    assert found is not None
    return found


# -- a database in trouble


class UnreliableDatabase(Database):
    """The test's database, which fails on demand."""

    def __init__(self, inner: Database) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.is_away = False
        # So many of the next commits happen, and their answers are lost.
        self.commits_lost = 0
        self._inner = inner

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        async with self._inner.transaction() as connection:
            yield connection
        if self.commits_lost:
            self.commits_lost -= 1
            raise CommitUnknown("lost")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        async with self._inner.read() as connection:
            yield connection

    async def dispose(self) -> None:
        """The test disposes of the inner database."""


@asynccontextmanager
async def locked_payments(database: Database, *which: ColumnElement[bool]) -> AsyncIterator[None]:
    """Lock every payment until the block ends; on PostgreSQL only those in question."""
    async with database.transaction() as connection:
        await connection.execute(select(payments).where(*which).with_for_update())
        yield
