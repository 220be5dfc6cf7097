"""The simulated gateway for tests: it takes no time, and draws a payment by its order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from shared.database.engine import Database
from shared.database.tables import gateway_ledger
from shared.lifecycle import FailureCode, MethodType
from shared.payments.payment import Payment
from shared.refunds.refund import Refund
from tests.support.rows import claimed
from worker.gateway.ledger import Ledger
from worker.gateway.simulator import SimulatedGateway

type Sleep = Callable[[float], Awaitable[None]]

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


class Killed(BaseException):
    """The process died here."""


async def die() -> None:
    """End the process, as far as the test is concerned."""
    raise Killed


class Naps:
    """Sleeps no time at all and keeps count; at the nap with the number `at` it does `what` first."""

    def __init__(self, at: int = 0, what: Callable[[], Awaitable[object]] | None = None) -> None:
        self.taken: list[float] = []
        self._at = at
        self._what = what

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if self._what is not None and len(self.taken) == self._at:
            await self._what()


class OrderKeys:
    """Draws a payment by its order: other payments for the same order end alike."""

    async def seed_key(self, payment: Payment) -> str:
        """See `SeedKeys.seed_key`."""
        return payment.order_id

    async def refund_key(self, payment: Payment, refund: Refund) -> str:
        """See `SeedKeys.refund_key`."""
        return f"{payment.order_id} {refund.number}"


def method(method_type: MethodType = MethodType.CREDIT_CARD, scenario: FailureCode | None = None) -> dict[str, Any]:
    """Return a payment's copy of its payment method."""
    return {"type": method_type, "details": {}, "scenario": scenario}


def payment_with(
    method_type: MethodType = MethodType.CREDIT_CARD, *, scenario: FailureCode | None = None, **changes: Any
) -> Payment:
    """Return a claimed payment of 15.85 USD, for an order of its own."""
    values: dict[str, Any] = {"method": method(method_type, scenario), "amount": 1585, **changes}
    return claimed(NOW, **values)


def gateway_over(ledger: Ledger, *, sleep: Sleep | None = None, **changes: Any) -> SimulatedGateway:
    """Return a gateway that approves, unless the changes say otherwise."""
    values: dict[str, Any] = {"seed": "a seed", "success_rate": 1.0, "delay_min_ms": 1000, "delay_max_ms": 3000}
    return SimulatedGateway(ledger, sleep=sleep or Naps(), seed_keys=OrderKeys(), **{**values, **changes})


@asynccontextmanager
async def running_ledger(database: Database, **limits: int) -> AsyncIterator[Ledger]:
    """Run a ledger until the block ends."""
    ledger = Ledger(database, **{"batch_max": 100, "queue_max": 1000, **limits})
    run = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        ledger.close()
        await run


async def all_entries(database: Database) -> list[str]:
    """Return the kinds of all entries of the ledger; those of one payment in the order in which they happened."""
    kinds = select(gateway_ledger.c.kind).order_by(gateway_ledger.c.payment_id, gateway_ledger.c.step)
    async with database.read() as connection:
        return list((await connection.execute(kinds)).scalars())


async def authorize_only(ledger: Ledger, payment: Payment) -> None:
    """Leave the payment as a worker does that is killed between authorization and capture."""
    with pytest.raises(Killed):
        await gateway_over(ledger, sleep=Naps(at=2, what=die)).charge(payment)
