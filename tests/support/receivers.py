"""Receivers of webhooks: real HTTP servers on loopback with scripted behaviour, and the rows that lead to them.

A receiver keeps what it was sent and checks signatures with the official `standardwebhooks` package, not our code.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks import Webhook

from shared.database.leases import WorkItem
from shared.database.tables import columns_of, deliveries, payments, webhook_endpoints
from shared.event_types import DEFAULT_EVENTS
from shared.ids import new_id
from shared.keyring import Keyring, new_webhook_secret
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.events import emit
from shared.payments.history import WORKER, Move
from shared.payments.payment import Payment
from shared.webhooks.deliveries import ClaimedDelivery
from shared.webhooks.fan_out import EmittedDeliveries
from tests.support.payment_rows import columns_of_payment

type Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        """The body as JSON; raises standardwebhooks.WebhookVerificationError unless `secret` signed it just now."""
        return Webhook(secret).verify(self.body, self.headers)

    @property
    def event(self) -> dict[str, Any]:
        """The body as JSON, unverified."""
        event: dict[str, Any] = json.loads(self.body)
        return event


@dataclass(slots=True)
class Receiver:
    """A running server. Each request takes the next behaviour of the script; the last one stays."""

    port: int
    script: list[Behaviour]
    requests: list[Received] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Received(request.path, dict(request.headers), await request.read()))
        behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await behaviour(request)


RUNNING = web.AppKey("running", Receiver)


@asynccontextmanager
async def receiver(*script: Behaviour) -> AsyncIterator[Receiver]:
    """A receiver with this script (200 for ever if empty) until the block ends."""
    running = Receiver(0, list(script) or [answering(200)])
    app = web.Application()
    app[RUNNING] = running
    app.router.add_route("*", "/{path:.*}", running.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    running.port = runner.addresses[0][1]
    try:
        yield running
    finally:
        running.closing.set()
        await runner.cleanup()


@asynccontextmanager
async def tripwire() -> AsyncIterator[tuple[str, list[object]]]:
    """A URL that must not be connected to, and the connections that were made all the same."""
    contacts: list[object] = []

    def contact(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        contacts.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(contact, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret", contacts


def answering(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answers at once."""

    async def behave(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return behave


def redirecting(url: str) -> Behaviour:
    """Sends elsewhere."""
    return answering(307, headers={"location": url})


def hanging() -> Behaviour:
    """Says nothing until the receiver closes."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.app[RUNNING].closing.wait()
        return web.Response()

    return behave


def waiting_for(released: asyncio.Event) -> Behaviour:
    """Says 200 once `released` is set."""

    async def behave(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    return behave


def hanging_up() -> Behaviour:
    """Closes the connection without an answer."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return behave


def streaming(status: int, part: bytes, *, pause_s: float = 0) -> Behaviour:
    """Sends `part` over and over, with pauses, until the other side has enough of it."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        while not request.app[RUNNING].closing.is_set():
            await response.write(part)
            await asyncio.sleep(pause_s)
        return response

    return behave


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint and its secret."""

    id: UUID
    secret: str


async def register(
    connection: AsyncConnection, keyring: Keyring, url: str, *, now: datetime, name: str = "shop", **columns: Any
) -> Endpoint:
    """An enabled endpoint for the terminal events."""
    endpoint = Endpoint(new_id(), new_webhook_secret())
    row = {
        "id": endpoint.id,
        "created_by": "service:shop",
        "name": name,
        "url": url,
        "event_types": [str(event) for event in DEFAULT_EVENTS],
        "enabled": True,
        "secret": keyring.encrypt(endpoint.secret),
        "created_at": now,
        "updated_at": now,
    }
    await connection.execute(insert(webhook_endpoints), {**row, **columns})
    return endpoint


async def complete_payments(
    connection: AsyncConnection, count: int, *, now: datetime, callback_url: str | None = None
) -> list[WorkItem]:
    """Insert payments that have just reached COMPLETED; return the work items of their deliveries, in order."""
    emitted = await _completed(connection, count, now=now, callback_url=callback_url)
    return [item for each in emitted for item in each.to_publish]


async def complete_and_lease(
    connection: AsyncConnection, count: int, *, now: datetime, lease_for_s: float, **options: Any
) -> list[ClaimedDelivery]:
    """Insert payments that have just reached COMPLETED; return their deliveries, which are inserted already leased."""
    emitted = await _completed(connection, count, now=now, lease_for_s=lease_for_s, **options)
    return [delivery for each in emitted for delivery in each.leased]


async def _completed(
    connection: AsyncConnection, count: int, *, now: datetime, callback_url: str | None = None, **options: Any
) -> list[EmittedDeliveries]:
    rows = [replace(a_payment(now), callback_url=callback_url) for _ in range(count)]
    await connection.execute(insert(payments), [columns_of_payment(payment) for payment in rows])
    moves = [Move(row, PaymentStatus.PROCESSING, HistoryReason.GATEWAY_APPROVED, WORKER) for row in rows]
    emitted = await emit(connection, moves, now=now, **options)
    return [emitted[payment.id] for payment in rows]


def a_payment(now: datetime) -> Payment:
    """A completed payment of user 1."""
    payment_id = new_id()
    return Payment(
        id=payment_id,
        user_id="1",
        created_by="user:1",
        order_id=str(payment_id),
        payment_method_id=new_id(),
        amount=1999,
        currency="USD",
        description="Zwölf Äpfel",
        metadata={},
        callback_url=None,
        idempotency_key=None,
        correlation_id="order-4711",
        method={"type": "CREDIT_CARD", "details": {"brand": "visa", "last4": "4242"}, "scenario": None},
        status=PaymentStatus.COMPLETED,
        sequence=3,
        lease_version=1,
        gateway_tries=0,
        due_at=None,
        due_reason=None,
        gateway="stripe_mock",
        gateway_transaction_id="ch_1",
        gateway_details={},
        outcome_rule="rate",
        failure_code=None,
        failure_reason=None,
        created_at=now,
        updated_at=now,
        processed_at=now,
    )


async def delivery_rows(connection: AsyncConnection, items: Sequence[WorkItem]) -> list[Any]:
    """The rows of these deliveries, in order, each column under its key."""
    wanted = deliveries.c.id.in_([item.id for item in items])
    found = await connection.execute(select(*columns_of(deliveries)).where(wanted))
    rows = {row.id: row for row in found}
    return [rows[item.id] for item in items]
