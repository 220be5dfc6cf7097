"""The receiver of webhooks of an installation that this command started: it counts the payments and refunds in them.

It does not verify signatures, because the same process sends the load. `payments demo` verifies every signature.
"""

from dataclasses import dataclass

import orjson
from aiohttp import web

from cli.load.client import Api, Unusable
from cli.local.receiver import WebhookReceiver
from shared.event_types import DEFAULT_EVENTS, EventType

# A refund is counted by the webhook of its end, and a payment by any of its own.
REFUND_ENDS = frozenset({EventType.REFUND_COMPLETED, EventType.REFUND_FAILED})


@dataclass(frozen=True, slots=True)
class Received:
    """For how many payments, and for how many refunds, a webhook of their end was received."""

    payments: int
    refunds: int


class WebhookSink(WebhookReceiver):
    """A receiver that counts the payments and refunds whose webhooks it received."""

    def __init__(self) -> None:
        super().__init__({"/": self._take})
        self._payment_ids: set[str] = set()
        self._refund_ids: set[str] = set()
        self.is_registered = False

    def received(self) -> Received:
        """Return for how many payments and refunds a webhook was received."""
        return Received(len(self._payment_ids), len(self._refund_ids))

    def reset(self) -> None:
        """Start the count again at zero."""
        self._payment_ids.clear()
        self._refund_ids.clear()

    async def register(self, api: Api, token: str) -> None:
        """Register this receiver as a webhook endpoint for the ends of all payments and refunds.

        Raises NoAnswer or Unusable.
        """
        content = {
            "name": "payments load",
            "url": f"{self.url}/",
            "event_types": [*DEFAULT_EVENTS, *sorted(REFUND_ENDS)],
        }
        answer = await api.request("POST", "/api/v1/webhook-endpoints", token, content=content)
        if not answer.is_success:
            raise Unusable(f"The service refused the webhook endpoint: {answer.status_and_code}.")
        self.is_registered = True

    async def _take(self, request: web.Request) -> int:
        event = orjson.loads(await request.read())
        if event["type"] in REFUND_ENDS:
            self._refund_ids.add(event["data"]["refund"]["id"])
        else:
            self._payment_ids.add(event["data"]["payment"]["id"])
        return 204
