"""Long polls: requests that wait until a payment or a refund has ended, or waits for a client itself.

A message of the broker ends the wait. The objects are also read from the database once a second, because a message
may be lost.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.broker.client import Broker
from shared.database.engine import Database
from shared.errors import BrokerUnavailable, PaymentsError

log = structlog.get_logger(__name__)

# Seconds between two reads of all objects that requests wait for.
POLL_INTERVAL_S = 1.0
# Seconds until a lost subscription is tried again.
RECONNECT_S = 0.5
# Ids in one query.
READ_MAX = 500


class Versioned(Protocol):
    """An object that requests wait for. `sequence` is its version, which grows with every change of what it shows."""

    @property
    def id(self) -> UUID: ...

    @property
    def sequence(self) -> int: ...

    @property
    def is_settled(self) -> bool: ...


type Waiter[T] = asyncio.Future[T | None]
type Read[T] = Callable[[AsyncConnection, Collection[UUID]], Awaitable[Sequence[T]]]
"""Reads the objects with these ids, those that exist."""


def is_settled(found: Versioned) -> bool:
    """Return whether the object has ended, or waits for a client."""
    return found.is_settled


def cancel(waiter: Waiter[Any]) -> None:
    """End a wait without an object, if it has not ended yet."""
    if not waiter.done():
        waiter.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    """A waiter, how the object it waits for is read, and the state of that object that ends the wait."""

    waiter: Waiter[Any]
    read: Read[Any]
    until: Callable[[Any], bool]


class LongPolls:
    """At most `capacity` waiters. One query for each kind serves all waiters whose objects have ended together."""

    def __init__(self, database: Database, broker: Broker, *, capacity: int) -> None:
        self._database = database
        self._broker = broker
        self._capacity = capacity
        self._subscriptions: dict[UUID, list[_Subscription]] = {}
        self._count = 0
        # Objects to be read again, because they may have ended.
        self._to_read: set[UUID] = set()
        self._has_news = asyncio.Event()
        self._is_draining = False

    @asynccontextmanager
    async def subscribe[T: Versioned](
        self, object_id: UUID, read: Read[T], *, until: Callable[[T], bool] = is_settled
    ) -> AsyncIterator[Waiter[T] | None]:
        """Yield a future that gets the object once `until` is true of it, or None at shutdown.

        Yield None instead of a future if there is no free capacity, or at shutdown. Subscribe before you read the
        object: then a change between the two is not missed. `read` is the same for every object of a kind.
        """
        if self._is_draining or self._count >= self._capacity:
            yield None
            return
        waiter: Waiter[T] = asyncio.get_running_loop().create_future()
        subscription = _Subscription(waiter, read, until)
        self._subscriptions.setdefault(object_id, []).append(subscription)
        self._count += 1
        metrics.waiters.set(self._count)
        try:
            yield waiter
        finally:
            self._count -= 1
            metrics.waiters.set(self._count)
            self._remove(object_id, subscription)

    async def run(self) -> None:
        """Serve the waiters until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._look_again())
            tasks.create_task(self._answer())

    def cancel_all(self) -> None:
        """End every wait and accept no new one, because the process is stopping."""
        self._is_draining = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                cancel(subscription.waiter)

    def _remove(self, object_id: UUID, subscription: _Subscription) -> None:
        subscriptions = self._subscriptions[object_id]
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._subscriptions[object_id]

    def _read_soon(self, object_ids: Iterable[UUID]) -> None:
        self._to_read.update(object_id for object_id in object_ids if object_id in self._subscriptions)
        if self._to_read:
            self._has_news.set()

    async def _listen(self) -> None:
        """Keep a subscription open. When it is new, read all objects again: earlier messages may have been lost."""
        while True:
            try:
                async with self._broker.subscribe_settled() as subscription:
                    self._read_soon(list(self._subscriptions))
                    while True:
                        self._read_soon(await subscription.next_ids(timeout_s=POLL_INTERVAL_S))
            except BrokerUnavailable as error:
                # Safe: `_look_again` finds the objects whose message is lost.
                log.warning("long_poll.subscription_lost", error=str(error))
                await asyncio.sleep(RECONNECT_S)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self._read_soon(list(self._subscriptions))

    async def _answer(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            object_ids, self._to_read = self._to_read, set()
            by_kind: dict[Read[Any], list[UUID]] = {}
            for object_id in object_ids:
                if subscriptions := self._subscriptions.get(object_id):
                    by_kind.setdefault(subscriptions[0].read, []).append(object_id)
            for read, of_kind in by_kind.items():
                for start in range(0, len(of_kind), READ_MAX):
                    await self._answer_some(read, of_kind[start : start + READ_MAX])

    async def _answer_some(self, read: Read[Any], object_ids: list[UUID]) -> None:
        try:
            async with self._database.read() as connection:
                found = await read(connection, object_ids)
        except PaymentsError as error:
            # Safe: these objects are read again within a second, and each request has its own timeout.
            log.warning("long_poll.database_failed", error=type(error).__name__)
            return
        for one in found:
            for subscription in self._subscriptions.get(one.id, ()):
                if subscription.until(one) and not subscription.waiter.done():
                    subscription.waiter.set_result(one)
