"""Hears of new jobs, so that a worker without work asks Redis for it only now and then."""

import asyncio
from contextlib import suppress

import structlog

from shared.broker.client import Broker, Queue
from shared.broker.subscription import Subscription
from shared.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

# Seconds between two questions for a sign of life.
SIGN_OF_LIFE_S = 1.0
# Seconds until the next subscription is tried. Meanwhile the queues are polled.
RECONNECT_S = 1.0


class QueueNews:
    """What a worker has heard of one queue. At first it may have jobs."""

    def __init__(self) -> None:
        self.is_live = False
        """A subscription is open: whoever publishes a job says so."""
        self._told = asyncio.Event()
        self._told.set()

    @property
    def may_have_jobs(self) -> bool:
        """Something was published since the last look that saw all jobs."""
        return self._told.is_set()

    def expect_jobs(self) -> None:
        """Note that the queue may have jobs."""
        self._told.set()

    def begin_look(self) -> None:
        """Note that the queue is looked into: what is published from now on may come too late for this look."""
        self._told.clear()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the queue may have jobs, for `timeout_s` seconds at most. Return whether it may."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), timeout_s)
        return self.may_have_jobs


class QueueWatch:
    """Keeps a subscription open that tells of new jobs. A lost message costs the time until the next poll."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._news = {queue: QueueNews() for queue in Queue}

    def news_of(self, queue: Queue) -> QueueNews:
        """Return what is heard of a queue, which `run` keeps up to date."""
        return self._news[queue]

    async def run(self) -> None:
        """Listen until cancelled. Whenever the subscription is lost, the queues are polled and another one is tried."""
        while True:
            try:
                async with self._broker.subscribe_published() as subscription:
                    await self._listen(subscription)
            except BrokerUnavailable as error:
                log.warning("jobs.subscription_lost", error=str(error))
            finally:
                self._set_live(is_live=False)
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, subscription: Subscription) -> None:
        self._set_live(is_live=True)
        while True:
            message = await subscription.next_message(timeout_s=SIGN_OF_LIFE_S)
            for queue, news in self._news.items():
                if message == queue.encode():
                    news.expect_jobs()

    def _set_live(self, *, is_live: bool) -> None:
        """Note whether messages come. Until now some may have been lost, so every queue may have jobs."""
        for news in self._news.values():
            news.is_live = is_live
            news.expect_jobs()
