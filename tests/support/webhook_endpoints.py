"""Webhook endpoints that are registered over HTTP, and what becomes of the deliveries to them."""

from typing import Any

import httpx
from sqlalchemy import select

from shared.database.leases import WorkItem
from shared.database.tables import deliveries
from shared.webhooks.attempts import Delivered, DeliveryAttempt, Exhausted, TryAgain, record_attempts
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries
from tests.support.api_client import RunningApi

TERMINAL = ["payment.cancelled", "payment.completed", "payment.failed"]


def endpoint(**changes: Any) -> dict[str, Any]:
    """The body that registers an endpoint."""
    return {"name": "orders", "url": "https://orders.example/hook", **changes}


async def registered(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    """A new endpoint, as its creator saw it."""
    answer = await client.post("/webhook-endpoints", json=endpoint(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def claimed_deliveries(running_api: RunningApi) -> list[ClaimedDelivery]:
    """Every delivery there is, claimed."""
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        found = await connection.execute(select(deliveries.c.id, deliveries.c.lease_version))
        items = [WorkItem(row.id, row.lease_version) for row in found]
        return [claim for claim in await claim_deliveries(connection, now, items, lease_s=30) if claim]


async def attempted(running_api: RunningApi, outcome: Delivered | Exhausted | TryAgain) -> None:
    """Every delivery there is gets one attempt."""
    claims = await claimed_deliveries(running_api)
    is_delivered = isinstance(outcome, Delivered)
    attempts = [
        DeliveryAttempt(
            delivery=claim,
            outcome=outcome,
            duration_ms=12,
            status_code=200 if is_delivered else 500,
            error=None if is_delivered else "the receiver answered 500",
            response_body=b"oops",
        )
        for claim in claims
    ]
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        assert all(await record_attempts(connection, now, attempts))


async def deliveries_of(client: httpx.AsyncClient, endpoint_id: str, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(f"/webhook-endpoints/{endpoint_id}/deliveries", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found
