"""What is worth telling: events with the body as it will be sent, and a delivery for everyone who wants it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.documents import Payment, event_body
from shared.ids import new_id
from shared.leases import PICK_UP_S, Ref
from shared.lifecycle import EVENT_OF_STATUS, TERMINAL_EVENTS, DeliveryKind, DeliveryStatus, EventType
from shared.models import deliveries, events, webhook_endpoints


async def tell(
    connection: AsyncConnection, payments: Sequence[Payment], *, now: datetime
) -> dict[UUID, tuple[Ref, ...]]:
    """Insert the event that each payment's status calls for, with its deliveries; their tickets by payment.

    Call it in the transaction that moved the payments, with the payments as they are after the move.
    """
    happened = [(new_id(), event, payment) for payment in payments if (event := EVENT_OF_STATUS[payment.status])]
    if not happened:
        return {}
    wanted_by = await _endpoints_by_type(connection)
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    for event_id, event, payment in happened:
        event_rows.append(
            {
                "id": event_id,
                "payment_id": payment.id,
                "sequence": payment.sequence,
                "type": event,
                "body": event_body(event, payment),
                "created_at": now,
            }
        )
        delivery_rows.extend(
            _delivery(event_id, payment, now, kind=DeliveryKind.ENDPOINT, endpoint_id=endpoint_id)
            for endpoint_id in wanted_by.get(event, ())
        )
        if payment.callback_url and event in TERMINAL_EVENTS:
            delivery_rows.append(
                _delivery(event_id, payment, now, kind=DeliveryKind.CALLBACK, url=payment.callback_url)
            )
    await connection.execute(insert(events), event_rows)
    if delivery_rows:
        await connection.execute(insert(deliveries), delivery_rows)
    told: dict[UUID, tuple[Ref, ...]] = {}
    for row in delivery_rows:
        told[row["payment_id"]] = (*told.get(row["payment_id"], ()), Ref(row["id"], row["attempt"]))
    return told


async def _endpoints_by_type(connection: AsyncConnection) -> dict[EventType, list[UUID]]:
    """Who wants what, among the endpoints that are enabled as this transaction sees them."""
    found = await connection.execute(
        select(webhook_endpoints.c.id, webhook_endpoints.c.event_types).where(
            webhook_endpoints.c.enabled, webhook_endpoints.c.deleted_at.is_(None)
        )
    )
    wanted_by: dict[EventType, list[UUID]] = {}
    for endpoint in found:
        for event_type in endpoint.event_types:
            wanted_by.setdefault(EventType(event_type), []).append(endpoint.id)
    return wanted_by


def _delivery(
    event_id: UUID,
    payment: Payment,
    now: datetime,
    *,
    kind: DeliveryKind,
    endpoint_id: UUID | None = None,
    url: str | None = None,
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "event_id": event_id,
        "payment_id": payment.id,
        "kind": kind,
        "endpoint_id": endpoint_id,
        "url": url,
        "correlation_id": payment.correlation_id,
        "status": DeliveryStatus.PENDING,
        "attempt": 0,
        "tries": 0,
        "attempts_made": 0,
        "due_at": now + timedelta(seconds=PICK_UP_S),
        "created_at": now,
        "updated_at": now,
    }
