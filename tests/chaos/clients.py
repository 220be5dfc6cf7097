"""The clients: they order, pay, repeat with the same idempotency key until they have an answer, and keep a journal."""

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any

import aiohttp

from cli.tokens import mint
from shared.event_types import EventType
from shared.ids import new_id
from tests.chaos.installation import Installation
from tests.chaos.later import MANUAL, Aim, Later, LaterJournal, drawn_aim
from tests.chaos.steering import drawn_script
from tests.chaos.undecided import CHALLENGED, RETURN_URL, CustomerJournal, drawn_method, drawn_reply

CLIENTS = 16
PATIENCE_S = 3.0  # for one answer
PAUSE_MAX_S = 1.0  # between two tries
# The part of the answered intents that is sent once more.
REPEATED = 0.1
CANCELLED = 0.05
HOOK = "/hook"


@dataclass(slots=True)
class Intent:
    """One line of the journal."""

    order_id: int
    user: str
    amount: int
    key: str = field(default_factory=lambda: str(new_id()))
    tries: int = 0
    payment_id: str | None = None  # None = no answer came yet
    is_manual: bool = False
    aim: Aim = Aim.LEAVE
    later: LaterJournal = field(default_factory=LaterJournal)
    method: str = ""
    script: tuple[str, ...] = ()
    customer: CustomerJournal = field(default_factory=CustomerJournal)


@dataclass(slots=True)
class Clients:
    """`CLIENTS` of them at `rate` intents per second together, all decided by the seed.

    The clients meet the run at `equipped`: cards and endpoints are registered before the first fault.
    """

    installation: Installation
    rate: float
    seed: str
    journal: list[Intent] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    equipped: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(CLIENTS + 1))

    @property
    def accepted(self) -> list[Intent]:
        """What was answered with a payment."""
        return [intent for intent in self.journal if intent.payment_id]

    @property
    def retries(self) -> int:
        """Tries beside the first."""
        return sum(max(0, intent.tries - 1) for intent in self.journal)

    async def run(self) -> None:
        """Pay until `closing`, then until everything that was begun has its answer."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as http:
            await self._register_endpoint(http)
            async with asyncio.TaskGroup() as group:
                for number in range(1, CLIENTS + 1):
                    group.create_task(self._client(http, str(number), group))

    async def _register_endpoint(self, http: aiohttp.ClientSession) -> None:
        body = {
            "name": "chaos",
            "url": self.installation.receiver.url + HOOK,
            "event_types": [str(each) for each in EVENT_TYPES],
        }
        answer = await self._setup(http, "POST", "/webhook-endpoints", self._bearer("chaos", "service"), body)
        self.installation.receiver.secrets[HOOK] = answer["secret"]

    async def _client(self, http: aiohttp.ClientSession, user: str, group: asyncio.TaskGroup) -> None:
        random = Random(f"{self.seed}:{user}")  # noqa: S311 - repeatable, not secret
        bearer = self._bearer(user)
        card = {"card_number": "4012888888881881", "exp_month": 12, "exp_year": 2099, "cvv": "123"}
        method = await self._setup(
            http, "POST", "/payment-methods", bearer, {"type": "CREDIT_CARD", "payment_details": card}
        )
        secret = await self._setup(http, "GET", "/callback-secret", bearer)
        self.installation.receiver.secrets[callback_path(user)] = secret["secret"]
        await self.equipped.wait()
        while not self.closing.is_set():
            intent = await self._pay(http, random, bearer, user, method["id"])
            if intent.payment_id is not None:
                group.create_task(self._later(http, intent).follow())
            pause_s = min(random.expovariate(self.rate / CLIENTS), 10 * CLIENTS / self.rate)
            try:
                await asyncio.wait_for(self.closing.wait(), pause_s)
            except TimeoutError:
                continue

    async def _pay(
        self, http: aiohttp.ClientSession, random: Random, bearer: dict[str, str], user: str, method_id: str
    ) -> Intent:
        amount = random.randrange(100, 100_000)
        order = self.installation.orders.place(user_id=int(user), total=f"{amount // 100}.{amount % 100:02}")
        intent = Intent(order.id, user, amount, is_manual=random.random() < MANUAL)
        intent.method = drawn_method(random, method_id)
        intent.script = drawn_script(random) if intent.method == method_id else ()
        intent.aim = drawn_aim(random, is_manual=intent.is_manual)
        self.journal.append(intent)
        body = {
            "order_id": order.id,
            "amount": amount,
            "payment_method_id": intent.method,
            "callback_url": self.installation.receiver.url + callback_path(user),
            "capture_method": "manual" if intent.is_manual else "automatic",
        }
        if intent.method == CHALLENGED:
            body["return_url"] = RETURN_URL
        if intent.script:
            body["simulation"] = {"outcomes": list(intent.script)}
        intent.payment_id = await self._until_answered(http, random, bearer, intent, body)
        if random.random() < REPEATED:
            again = await self._until_answered(http, random, bearer, intent, body)
            if again != intent.payment_id:
                self.installation.findings.append(f"the key of {intent.payment_id} led to {again}")
        if random.random() < CANCELLED:
            await self._ask(http, random, "POST", f"/payments/{intent.payment_id}/cancel", bearer)
        return intent

    def _later(self, http: aiohttp.ClientSession, intent: Intent) -> Later:
        """What the shop's service does to a payment afterwards, decided by the seed and the order."""
        assert intent.payment_id is not None
        random = Random(f"{self.seed}:later:{intent.order_id}")  # noqa: S311 - repeatable, not secret
        bearer = self._bearer("chaos", "service")

        async def ask(method: str, path: str, key: str | None, body: dict[str, Any] | None) -> tuple[int | None, Any]:
            headers = bearer if key is None else {**bearer, "Idempotency-Key": key}
            return await self._ask(http, random, method, path, headers, body)

        findings = self.installation.findings
        reply = drawn_reply(random) if intent.method == CHALLENGED else None
        return Later(
            intent.payment_id, intent.amount, intent.aim, ask, random, intent.later, findings, reply, intent.customer
        )

    async def _until_answered(
        self, http: aiohttp.ClientSession, random: Random, bearer: dict[str, str], intent: Intent, body: dict[str, Any]
    ) -> str | None:
        """The payment's id; None if the service has said no, which it has no reason to."""
        while True:
            intent.tries += 1
            status, said = await self._ask(
                http, random, "POST", "/payments", {**bearer, "Idempotency-Key": intent.key}, body
            )
            match status:
                case HTTPStatus.ACCEPTED | HTTPStatus.CREATED | HTTPStatus.OK:
                    return str(said["id"])
                case None | HTTPStatus.SERVICE_UNAVAILABLE:
                    await asyncio.sleep(random.uniform(0.1, PAUSE_MAX_S))
                case _:
                    self.installation.findings.append(f"order {intent.order_id}: {status} {said}")
                    return None

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        random: Random,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None = None,
    ) -> tuple[int | None, Any]:
        """Status and document of one of the APIs; (None, None) if no answer came."""
        try:
            async with http.request(
                method, random.choice(self.installation.urls) + path, headers=headers, json=body
            ) as reply:
                return reply.status, await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None, None

    async def _setup(
        self,
        http: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None = None,
    ) -> Any:
        """Before anything is broken, every answer is a good one."""
        random = Random(0)  # noqa: S311 - not secret
        status, said = await self._ask(http, random, method, path, headers, body)
        assert status in {HTTPStatus.OK, HTTPStatus.CREATED}, f"{method} {path}: {status} {said}"
        return said

    def _bearer(self, user: str, role: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {mint(self.installation.settings, user=user, role=role, hours=24)}"}


EVENT_TYPES = tuple(EventType)


def callback_path(user: str) -> str:
    """Where a user's callbacks go; each user's are signed with a secret of their own."""
    return f"/callback/{user}"
