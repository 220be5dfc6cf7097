"""Long polls: requests that wait until a payment has ended.

A message of the broker ends the wait. The payments are also read from the database once a second, because a message
may be lost.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from shared import metrics
from shared.broker.client import Broker
from shared.database.engine import Database
from shared.errors import BrokerUnavailable, PaymentsError
from shared.payments.find import find_many
from shared.payments.payment import Payment

log = structlog.get_logger(__name__)

# Seconds between two reads of all payments that requests wait for.
POLL_INTERVAL_S = 1.0
# Seconds until a lost subscription is tried again.
RECONNECT_S = 0.5
# Ids in one query.
READ_MAX = 500

type Waiter = asyncio.Future[Payment | None]


def cancel(waiter: Waiter) -> None:
    """End a wait without a payment, if it has not ended yet."""
    if not waiter.done():
        waiter.set_result(None)


class LongPolls:
    """At most `capacity` waiters. One query serves all waiters whose payments have ended together."""

    def __init__(self, database: Database, broker: Broker, *, capacity: int) -> None:
        self._database = database
        self._broker = broker
        self._capacity = capacity
        self._waiters: dict[UUID, list[Waiter]] = {}
        self._count = 0
        # Payments to be read again, because they may have ended.
        self._to_read: set[UUID] = set()
        self._has_news = asyncio.Event()
        self._is_draining = False

    @asynccontextmanager
    async def subscribe(self, payment_id: UUID) -> AsyncIterator[Waiter | None]:
        """Yield a future that gets the payment once it is terminal, or None at shutdown.

        Yield None instead of a future if there is no free capacity, or at shutdown. Subscribe before you read the
        payment: then a change between the two is not missed.
        """
        if self._is_draining or self._count >= self._capacity:
            yield None
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(payment_id, []).append(waiter)
        self._count += 1
        metrics.waiters.set(self._count)
        try:
            yield waiter
        finally:
            self._count -= 1
            metrics.waiters.set(self._count)
            self._remove(payment_id, waiter)

    async def run(self) -> None:
        """Serve the waiters until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._look_again())
            tasks.create_task(self._answer())

    def cancel_all(self) -> None:
        """End every wait and accept no new one, because the process is stopping."""
        self._is_draining = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                cancel(waiter)

    def _remove(self, payment_id: UUID, waiter: Waiter) -> None:
        waiters = self._waiters[payment_id]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[payment_id]

    def _read_soon(self, payment_ids: Iterable[UUID]) -> None:
        self._to_read.update(payment_id for payment_id in payment_ids if payment_id in self._waiters)
        if self._to_read:
            self._has_news.set()

    async def _listen(self) -> None:
        """Keep a subscription open. When it is new, read all payments again: earlier messages may have been lost."""
        while True:
            try:
                async with self._broker.subscribe_settled() as subscription:
                    self._read_soon(list(self._waiters))
                    while True:
                        self._read_soon(await subscription.next_ids(timeout_s=POLL_INTERVAL_S))
            except BrokerUnavailable as error:
                # Safe: `_look_again` finds the payments whose message is lost.
                log.warning("long_poll.subscription_lost", error=str(error))
                await asyncio.sleep(RECONNECT_S)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self._read_soon(list(self._waiters))

    async def _answer(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            payment_ids, self._to_read = list(self._to_read), set()
            for start in range(0, len(payment_ids), READ_MAX):
                await self._answer_some(payment_ids[start : start + READ_MAX])

    async def _answer_some(self, payment_ids: list[UUID]) -> None:
        try:
            async with self._database.read() as connection:
                found = await find_many(connection, payment_ids)
        except PaymentsError as error:
            # Safe: these payments are read again within a second, and each request has its own timeout.
            log.warning("long_poll.database_failed", error=type(error).__name__)
            return
        for payment in found:
            if payment.status.is_settled:
                for waiter in self._waiters.get(payment.id, ()):
                    if not waiter.done():
                        waiter.set_result(payment)
