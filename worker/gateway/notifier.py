"""The notifications of the simulated gateways: what they settle late, they report once, to GATEWAY_NOTIFICATION_URL.

A notification names no outcome. One that is lost is not sent again: the service asks by itself, only later.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import Any

import orjson
import structlog

from shared import metrics
from shared.config.settings import Settings
from shared.database.clock import rfc3339
from shared.errors import UpstreamUnavailable
from shared.ids import new_id
from shared.keyring import Keyring
from shared.upstream.breaker import Breaker
from shared.upstream.client import SignedBody, UpstreamClient
from shared.webhooks.signatures import sign
from worker.gateway.late_answers import LateAnswer

log = structlog.get_logger(__name__)

# Notifications that wait for their moment: about 40 MB.
SCHEDULED_MAX = 100_000
# Notifications that are being sent at once.
IN_FLIGHT_MAX = 20
# Seconds that one may take.
TIMEOUT_S = 5.0
# Seconds between two log lines about notifications that found no room.
LOG_EVERY_S = 1.0
NAME = "gateway_notifications"
_SUCCESS = range(200, 300)


class Notifier:
    """Notifies of each late answer once, at its moment. Needs `run`. Without a client nothing is scheduled.

    At most `scheduled_max` wait for their moment and `in_flight_max` are being sent; the client bounds their time. What
    is scheduled is lost with the process. `clock` (in seconds) decides when, and `real_s` says in how many seconds of
    real time so many seconds of it have passed. `now` is the time that is signed, and `shown_now` the time that stands
    in the notification.
    """

    def __init__(
        self,
        client: UpstreamClient | None,
        keyring: Keyring,
        *,
        scheduled_max: int = SCHEDULED_MAX,
        in_flight_max: int = IN_FLIGHT_MAX,
        clock: Callable[[], float] = monotonic,
        real_s: Callable[[float], float] = lambda seconds: seconds,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        shown_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._keyring = keyring
        self._scheduled_max = scheduled_max
        self._free = asyncio.Semaphore(in_flight_max)
        self._clock = clock
        self._real_s = real_s
        self._now = now
        self._shown_now = shown_now
        # By moment; the number keeps those of one moment in their order.
        self._heap: list[tuple[float, int, LateAnswer]] = []
        self._numbers = itertools.count()
        self._is_sooner = asyncio.Event()
        # Notifications without room since the last log line about them.
        self._dropped_count = 0
        self._logged_at = -inf

    @property
    def scheduled(self) -> int:
        """Notifications that wait for their moment."""
        return len(self._heap)

    def schedule(self, answer: LateAnswer) -> None:
        """Have the service notified of a late answer once its moment has come; drop it if too many wait.

        Never raises or waits.
        """
        if self._client is None:
            return
        if len(self._heap) >= self._scheduled_max:
            self._drop()
            return
        due_at = self._clock() + answer.settles_in_s
        entry = (due_at, next(self._numbers), answer)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._is_sooner.set()

    @property
    def next_due_s(self) -> float | None:
        """The moment of the notification that is due first, in seconds of `clock`; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def look_again(self) -> None:
        """Look at the clock, which has changed."""
        self._is_sooner.set()

    async def run(self) -> None:
        """Send what is due until cancelled. What is scheduled or being sent then is dropped."""
        if self._client is None:
            return
        async with self._client as client, asyncio.TaskGroup() as sending:
            while True:
                await self._free.acquire()
                sending.create_task(self._send(client, await self._next_due()))

    async def _next_due(self) -> LateAnswer:
        """Wait for the moment of the notification that is due first, and take it."""
        while True:
            self._is_sooner.clear()
            wait_s = self._heap[0][0] - self._clock() if self._heap else None
            if wait_s is not None and wait_s <= 0:
                return heapq.heappop(self._heap)[2]
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s is None else self._real_s(wait_s)):
                    await self._is_sooner.wait()

    async def _send(self, client: UpstreamClient, answer: LateAnswer) -> None:
        body = orjson.dumps(_body(answer, self._shown_now()))
        secret = self._keyring.notification_secret(answer.gateway)
        headers = sign(secret, new_id(), int(self._now().timestamp()), body)
        try:
            reply = await client.ask("POST", f"/{answer.gateway}", signed=SignedBody(body, headers))
        except UpstreamUnavailable:
            # Safe: the payment is asked for without it. The client has logged why.
            result = "unreachable"
        else:
            result = "accepted" if reply.status in _SUCCESS else "refused"
            if result == "refused":
                log.warning("gateway.notification_refused", gateway=answer.gateway, status=reply.status)
        finally:
            self._free.release()
        metrics.notifications_sent.labels(result).inc()

    def _drop(self) -> None:
        """Count a notification that finds no room. One log line per second says how many those were."""
        metrics.notifications_sent.labels("dropped").inc()
        self._dropped_count += 1
        if (now_s := self._clock()) - self._logged_at > LOG_EVERY_S:
            # Safe: the payment is asked for without it.
            log.warning("gateway.notifications_dropped", count=self._dropped_count)
            self._dropped_count, self._logged_at = 0, now_s


def _body(answer: LateAnswer, now: datetime) -> dict[str, Any]:
    data = {"gateway": answer.gateway, "payment_id": str(answer.payment_id)}
    if answer.refund_id is not None:
        data["refund_id"] = str(answer.refund_id)
    kind = "payment.settled" if answer.refund_id is None else "refund.settled"
    return {"type": kind, "timestamp": rfc3339(now), "data": data}


def open_notifier(settings: Settings, keyring: Keyring, **times: Any) -> Notifier:
    """Return the notifier of these settings, which schedules nothing without GATEWAY_NOTIFICATION_URL.

    `times` are the clocks that it goes by: see `Notifier`.
    """
    if settings.gateway_notification_url is None:
        return Notifier(None, keyring)
    client = UpstreamClient(
        NAME,
        settings.gateway_notification_url,
        timeout_s=TIMEOUT_S,
        connections_max=IN_FLIGHT_MAX,
        breaker=Breaker(NAME, failures_max=settings.breaker_failures, open_s=settings.breaker_open_s),
    )
    return Notifier(client, keyring, **times)
