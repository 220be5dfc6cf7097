"""One attempt to send a delivery: a signed webhook, or an update of the order.

It knows no database: what an attempt came to is recorded elsewhere.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic

from aiohttp import ClientSession
from cryptography.fernet import InvalidToken

from shared.delivery_lifecycle import DeliveryKind
from shared.event_types import EventType
from shared.keyring import Keyring
from shared.webhooks.attempts import AttemptOutcome, Conflict, Delivered, DeliveryAttempt, Exhausted
from shared.webhooks.deliveries import ClaimedDelivery
from shared.webhooks.endpoints import SECRET_UNREADABLE
from shared.webhooks.order_deliveries import KnownOfOrder
from worker.deliveries.webhook import (
    JITTER_MAX,
    WebhookAnswer,
    decide,
    headers_of,
    hold_for,
    longest_retry_after,
    post,
)
from worker.order_updates import CANCEL, CANCEL_UNLESS_PENDING, CONFIRM, OrderStatus, OrderUpdate, UpdateResult
from worker.orders import OrderNotifier

# Secrets that are kept decrypted in memory: decrypting takes longer than signing.
SECRETS_CACHED = 1_000
# What an event asks of the order service, and the beginning of the note on the order.
ORDER_UPDATES: dict[str, tuple[OrderUpdate, str]] = {
    EventType.COMPLETED: (CONFIRM, "Paid"),
    EventType.REFUNDED: (CANCEL, "Refunded"),
}


def draw_jitter() -> float:
    """Return a jitter between -JITTER_MAX and JITTER_MAX: the part of a wait by which the wait is lengthened."""
    return random.uniform(-JITTER_MAX, JITTER_MAX)  # noqa: S311 - no secret


class AttemptMaker:
    """Makes attempts to send. `schedule_s` lists the seconds to wait after each failure.

    A call of the order service takes `timeout_s` seconds at most; the session that is given has its own timeout for
    webhooks. Without `orders`, deliveries to the order service fail.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        timeout_s: float,
        schedule_s: Sequence[float],
        orders: OrderNotifier | None = None,
        jitter: Callable[[], float] = draw_jitter,
    ) -> None:
        self._keyring = keyring
        self._timeout_s = timeout_s
        self._schedule_s = schedule_s
        self._orders = orders
        self._jitter = jitter
        self._endpoint_secret = lru_cache(SECRETS_CACHED)(keyring.decrypt)

    async def attempt(self, session: ClientSession, delivery: ClaimedDelivery) -> DeliveryAttempt:
        """Send the delivery once, and return what that came to.

        Never raises for what the receiver or the network does.
        """
        if delivery.kind is DeliveryKind.ORDER:
            return await self._update_order(delivery)
        secret = self._secret(delivery)
        if secret is None:
            return _unsigned(delivery)
        answer = await post(session, delivery.url, headers=headers_of(delivery, secret), body=delivery.body)
        return self._judge_answer(delivery, answer)

    def _secret(self, delivery: ClaimedDelivery) -> str | None:
        if delivery.encrypted_secret is None:
            return self._keyring.callback_secret(delivery.owner)
        try:
            return self._endpoint_secret(delivery.encrypted_secret)
        except InvalidToken:
            return None

    def _judge_answer(self, delivery: ClaimedDelivery, answer: WebhookAnswer) -> DeliveryAttempt:
        status = answer.status if answer.is_whole else None
        retry_after_s = longest_retry_after(answer.retry_after, delivery.sent_at)
        outcome = decide(
            status,
            retry_after_s=retry_after_s,
            retries=delivery.retries,
            schedule_s=self._schedule_s,
            jitter=self._jitter(),
        )
        return DeliveryAttempt(
            delivery=delivery,
            outcome=outcome,
            duration_ms=answer.duration_ms,
            status_code=answer.status,
            error=answer.error,
            response_body=answer.body,
            hold_s=hold_for(status, retry_after_s=retry_after_s, schedule_s=self._schedule_s),
            repeats=answer.repeats,
        )

    async def _update_order(self, delivery: ClaimedDelivery) -> DeliveryAttempt:
        update, note = ORDER_UPDATES[delivery.event_type]
        if delivery.known_of_order is KnownOfOrder.MAY_BE_PAID:
            update = CANCEL_UNLESS_PENDING
        started = monotonic()
        if delivery.known_of_order is KnownOfOrder.CANCELLED:
            refusal = update.refused[OrderStatus.CANCELLED]
            result = UpdateResult(order_status=OrderStatus.CANCELLED, error=refusal, is_refused=True)
        elif self._orders is None:
            result = UpdateResult(order_status=None, error="ORDER_SERVICE_URL is not set")
        else:
            notes = f"{note}: payment {delivery.payment_id}"
            result = await self._update_in_time(self._orders, delivery, update, notes)
        return DeliveryAttempt(
            delivery=delivery,
            outcome=self._judge_update(delivery, update, result),
            duration_ms=round((monotonic() - started) * 1000),
            status_code=result.status_code,
            error=result.error,
            response_body=result.body,
        )

    async def _update_in_time(
        self, orders: OrderNotifier, delivery: ClaimedDelivery, update: OrderUpdate, notes: str
    ) -> UpdateResult:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await orders.update(
                    delivery.order_id, update, notes=notes, correlation_id=delivery.correlation_id
                )
        except TimeoutError:
            return UpdateResult(order_status=None, error="no answer in time")

    def _judge_update(self, delivery: ClaimedDelivery, update: OrderUpdate, result: UpdateResult) -> AttemptOutcome:
        if result.error is None:
            return Delivered()
        if result.is_refused:
            # Money was taken for an order that was cancelled. An order that cannot be cancelled is no such conflict.
            return Conflict() if update is CONFIRM else Exhausted()
        return decide(
            None, retry_after_s=None, retries=delivery.retries, schedule_s=self._schedule_s, jitter=self._jitter()
        )


def _unsigned(delivery: ClaimedDelivery) -> DeliveryAttempt:
    """Return the attempt of a delivery that cannot be signed. No later attempt could, so none is scheduled."""
    return DeliveryAttempt(
        delivery=delivery,
        outcome=Exhausted(),
        duration_ms=0,
        status_code=None,
        error=f"nothing was sent: {SECRET_UNREADABLE}",
        response_body=b"",
    )
