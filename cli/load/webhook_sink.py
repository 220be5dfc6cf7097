"""The receiver of webhooks of an installation that this command started: it counts the payments in them.

It does not verify signatures, because the same process sends the load. `payments demo` verifies every signature.
"""

import orjson
from aiohttp import web

from cli.load.client import Api, Unusable
from cli.local.receiver import WebhookReceiver


class WebhookSink(WebhookReceiver):
    """A receiver that counts the payments whose webhooks it received."""

    def __init__(self) -> None:
        super().__init__({"/": self._take})
        self._payment_ids: set[str] = set()
        self.is_registered = False

    def received_count(self) -> int:
        """Return for how many payments a webhook was received."""
        return len(self._payment_ids)

    def reset(self) -> None:
        """Start the count again at zero."""
        self._payment_ids.clear()

    async def register(self, api: Api, token: str) -> None:
        """Register this receiver as a webhook endpoint for the ends of all payments. Raises NoAnswer or Unusable."""
        content = {"name": "payments load", "url": f"{self.url}/"}
        answer = await api.request("POST", "/api/v1/webhook-endpoints", token, content=content)
        if not answer.is_success:
            raise Unusable(f"The service refused the webhook endpoint: {answer.status_and_code}.")
        self.is_registered = True

    async def _take(self, request: web.Request) -> int:
        self._payment_ids.add(orjson.loads(await request.read())["data"]["payment"]["id"])
        return 204
