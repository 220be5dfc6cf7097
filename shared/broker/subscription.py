"""Subscriptions to the channels of the broker. A message may be lost: each is a hint to look at once, and no more."""

from collections.abc import Callable
from time import monotonic
from uuid import UUID

import orjson
import structlog
from redis.asyncio.client import PubSub

from shared.broker.failures import errors_translated

log = structlog.get_logger(__name__)

# Seconds without any message after which a subscription counts as lost. It asks for one once a second.
SILENCE_MAX_S = 2.5


class Subscription:
    """A subscription to one channel; see `Broker.subscribe_published`."""

    def __init__(self, pubsub: PubSub, clock: Callable[[], float] = monotonic) -> None:
        self._pubsub = pubsub
        self._clock = clock
        self._heard_at = clock()

    async def next_message(self, *, timeout_s: float) -> bytes | None:
        """Return the next message; None after `timeout_s` seconds without one.

        Raises BrokerUnavailable if the connection is lost, also one that was dropped without a word: after a time
        without a message Redis is asked for one, and must answer.
        """
        with errors_translated():
            message = await self._pubsub.get_message(timeout=timeout_s)
            if message is not None:
                self._heard_at = self._clock()
            elif self._clock() - self._heard_at > SILENCE_MAX_S:
                raise TimeoutError("the subscription is silent")
            else:
                await self._pubsub.ping()
        return message["data"] if message is not None and message["type"] == "message" else None


class SettledSubscription(Subscription):
    """A subscription to the payments that are settled; see `Broker.subscribe_settled`."""

    async def next_ids(self, *, timeout_s: float) -> list[UUID]:
        """Return the payments of the next message; none after `timeout_s` seconds. Raises as `next_message`."""
        message = await self.next_message(timeout_s=timeout_s)
        return _payment_ids(message) if message is not None else []


def _payment_ids(data: bytes) -> list[UUID]:
    """Return the ids in a message; none if the message is not ours, as any client of a shared Redis may publish."""
    try:
        return [UUID(name) for name in orjson.loads(data)]
    except (ValueError, TypeError, AttributeError):
        log.warning("broker.message_refused")
        return []
