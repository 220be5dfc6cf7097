"""An order service and a receiver of webhooks that fail now and then, and keep what they took."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Self

from aiohttp import web
from standardwebhooks import WebhookVerificationError

from tests.support.order_standins import OrderService
from tests.support.receivers import Receiver, answering, hanging_up, receiver

SLOW_S = 1.0
HANGS_S = 6.0  # longer than any client waits

type Mood = Literal["well", "failing", "slow", "hanging", "hanging_up"]


@dataclass(slots=True)
class FlakyOrders(OrderService):
    """The platform's order service; the faults use its switches."""

    async def heal(self) -> None:
        """All its troubles end."""
        self.failing, self.delay_s, self.updates_to_lose, self.updates_to_drop = None, 0, 0, 0
        if self._runner is None:
            await self.up()


@dataclass(slots=True)
class FlakyReceiver:
    """Counts what it took with a 200, by the secret that signed it; `secrets` are by path."""

    url: str = ""
    mood: Mood = "well"
    secrets: dict[str, str] = field(default_factory=dict)
    taken: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # path, payment, event type
    forged: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator[Self]:
        """A receiver until the block ends."""
        flaky = cls()

        async def behave(request: web.Request) -> web.StreamResponse:
            return await flaky.handle(running, request)

        async with receiver(behave) as running:
            flaky.url = running.url.removesuffix("/hook")
            yield flaky

    async def handle(self, running: Receiver, request: web.Request) -> web.StreamResponse:
        """As its mood is; what came is taken from the server's memory, which would grow."""
        received = running.requests.pop()
        match self.mood:
            case "failing":
                return await answering(500)(request)
            case "hanging_up":
                return await hanging_up()(request)
            case "hanging":
                await asyncio.sleep(HANGS_S)
                return await answering(500)(request)
            case "slow":
                await asyncio.sleep(SLOW_S)
            case "well":
                pass
        try:
            event = received.verified(self.secrets[received.path])
        except WebhookVerificationError as error:
            self.forged.append(f"{received.path}: {error}")
            return await answering(400)(request)
        self.taken[received.path, event["data"]["payment"]["id"], event["type"]] += 1
        return await answering(200)(request)
