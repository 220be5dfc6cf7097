"""Requests that wait for a payment to end. Redis wakes them; once a second the database is asked, should Redis not."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
import structlog
from redis.exceptions import RedisError

from shared import metrics
from shared.db import Database
from shared.documents import Payment
from shared.errors import PaymentsError
from shared.payments.find import find_many
from shared.queue import SETTLED_CHANNEL, Carrier

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 1.0
RECONNECT_S = 0.5
READ_MAX = 500  # ids in one query


class WaitingRoom:
    """Holds at most `capacity` waiters; one query serves all that were woken together."""

    def __init__(self, database: Database, carrier: Carrier, *, capacity: int) -> None:
        self._database = database
        self._carrier = carrier
        self._capacity = capacity
        self._waiting: dict[UUID, list[asyncio.Future[Payment | None]]] = {}
        self._seated = 0
        self._woken: set[UUID] = set()
        self._news = asyncio.Event()
        self._draining = False

    @asynccontextmanager
    async def seat(self, payment_id: UUID) -> AsyncIterator[asyncio.Future[Payment | None] | None]:
        """A future that gets the payment once it is terminal, or None at shutdown; no future if there is no seat left.

        Take the seat before reading the payment: what happens between the two is not missed then.
        """
        if self._draining or self._seated >= self._capacity:
            yield None
            return
        future: asyncio.Future[Payment | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(payment_id, []).append(future)
        self._seated += 1
        metrics.waiters.set(self._seated)
        try:
            yield future
        finally:
            self._seated -= 1
            metrics.waiters.set(self._seated)
            self._leave(payment_id, future)

    async def run(self) -> None:
        """Wake waiters until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._look_again())
            tasks.create_task(self._answer())

    def drain(self) -> None:
        """Send everybody home: the process stops."""
        self._draining = True
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)

    def _leave(self, payment_id: UUID, future: asyncio.Future[Payment | None]) -> None:
        futures = self._waiting[payment_id]
        futures.remove(future)
        if not futures:
            del self._waiting[payment_id]

    def _wake(self, payment_ids: Iterable[UUID]) -> None:
        self._woken.update(payment_id for payment_id in payment_ids if payment_id in self._waiting)
        if self._woken:
            self._news.set()

    async def _listen(self) -> None:
        """Keep a subscription; whenever it is new, everybody may have missed something."""
        while True:
            try:
                async with self._carrier.redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(SETTLED_CHANNEL)
                    self._wake(list(self._waiting))
                    while True:
                        message = await subscription.get_message(timeout=LOOK_AGAIN_S)
                        if message is not None:
                            self._wake(_ids(message["data"]))
            except (RedisError, OSError, TimeoutError) as error:
                # Safe: `_look_again` finds what no message tells.
                log.warning("waiting.subscription_lost", error=type(error).__name__)
                await asyncio.sleep(RECONNECT_S)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            self._wake(list(self._waiting))

    async def _answer(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            woken, self._woken = list(self._woken), set()
            for start in range(0, len(woken), READ_MAX):
                await self._answer_some(woken[start : start + READ_MAX])

    async def _answer_some(self, payment_ids: list[UUID]) -> None:
        try:
            async with self._database.read() as connection:
                found = await find_many(connection, payment_ids)
        except PaymentsError as error:
            # Safe: they are looked at again within a second, and each has its own timeout.
            log.warning("waiting.database_failed", error=type(error).__name__)
            return
        for payment in found:
            if payment.status.is_terminal:
                for future in self._waiting.get(payment.id, ()):
                    if not future.done():
                        future.set_result(payment)


def _ids(data: bytes) -> list[UUID]:
    """The payments that a message names; none for what is not ours: anybody may publish on a shared Redis."""
    try:
        return [UUID(name) for name in orjson.loads(data)]
    except (ValueError, TypeError, AttributeError):
        log.warning("waiting.message_refused")
        return []
