"""The demo's receiver of webhooks. It must not accept a delivery whose signature it has not verified."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from aiohttp import web

from cli.local.receiver import WebhookReceiver

type Kind = Literal["endpoint", "callback"]
KINDS: tuple[Kind, ...] = ("endpoint", "callback")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook that was received and verified."""

    kind: Kind
    event_type: str
    payment: dict[str, Any]
    # The refund that the event is about; None if it is about none.
    refund: dict[str, Any] | None
    at: datetime


class Receiver(WebhookReceiver):
    """A receiver that answers 204 to a delivery that is signed with the secret of its kind, and 400 to all others.

    `refused` has a line for each delivery that was answered with 400.
    """

    def __init__(self) -> None:
        super().__init__({f"/{kind}": partial(self._take, kind) for kind in KINDS})
        self.secrets: dict[Kind, str] = {}
        self.refused: list[str] = []
        # By payment and kind, in the order of their arrival.
        self._arrivals: dict[tuple[str, Kind], list[Arrival]] = {}
        self._webhook_ids: set[tuple[Kind, str]] = set()
        self._arrived = asyncio.Condition()

    def url_for(self, kind: Kind) -> str:
        """Return the URL that takes deliveries of this kind."""
        return f"{self.url}/{kind}"

    async def arrival(
        self,
        payment_id: str,
        kind: Kind,
        *,
        event_type: str | None = None,
        refund_id: str | None = None,
        timeout_s: float,
    ) -> Arrival | None:
        """Wait for a verified webhook of this payment, and return the first one.

        With `event_type` or `refund_id` only those of this type, or about this refund, count. Return None if none comes
        within `timeout_s` seconds.
        """

        def first() -> Arrival | None:
            return next(
                (
                    arrival
                    for arrival in self._arrivals.get((payment_id, kind), ())
                    if event_type in {None, arrival.event_type}
                    and (refund_id is None or (arrival.refund or {}).get("id") == refund_id)
                ),
                None,
            )

        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                return await self._arrived.wait_for(first)
        except TimeoutError:
            return None

    async def _take(self, kind: Kind, request: web.Request) -> int:
        # Imported here, because a production image does not have the package.
        from standardwebhooks import Webhook, WebhookVerificationError  # noqa: PLC0415

        body = await request.read()
        try:
            event = Webhook(self.secrets[kind]).verify(body, dict(request.headers))
        except (WebhookVerificationError, KeyError) as error:
            self.refused.append(f"{kind} delivery {request.headers.get('webhook-id')}: {error!r}")
            return 400
        payment = event["data"]["payment"]
        arrival = Arrival(kind, event["type"], payment, event["data"].get("refund"), datetime.now(UTC))
        delivered = (kind, request.headers["webhook-id"])
        async with self._arrived:
            # The same webhook may be delivered twice. The first time counts.
            if delivered not in self._webhook_ids:
                self._webhook_ids.add(delivered)
                self._arrivals.setdefault((payment["id"], kind), []).append(arrival)
            self._arrived.notify_all()
        return 204
