"""What is worth telling: events with the body as it will be sent, and a delivery for everyone who wants it."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert  # without a target it compiles on SQLite too
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of
from shared.documents import Payment, event_body
from shared.ids import new_id
from shared.leases import PICK_UP_S, Ref
from shared.lifecycle import EVENT_OF_STATUS, TERMINAL_EVENTS, DeliveryKind, DeliveryStatus, EventType
from shared.models import deliveries, events, webhook_endpoints
from shared.models import payments as moved


async def tell(
    connection: AsyncConnection, payments: Sequence[Payment], *, now: datetime, confirms_orders: bool = False
) -> dict[UUID, tuple[Ref, ...]]:
    """Insert the event that each payment's status calls for, with its deliveries; their tickets by payment.

    With `confirms_orders` the order service is told of every completed payment. Call it in the transaction that moved
    the payments, with the payments as they are after the move.
    """
    happened = [(new_id(), event, payment) for payment in payments if (event := EVENT_OF_STATUS[payment.status])]
    if not happened:
        return {}
    wanted_by = await _endpoints_by_type(connection)
    delivery_rows: list[dict[str, Any]] = []
    for event_id, event, payment in happened:
        delivery_rows += _to_endpoints(event_id, payment, now, wanted_by.get(event, ()))
        if payment.callback_url and event in TERMINAL_EVENTS:
            delivery_rows.append(
                _delivery(event_id, payment, now, kind=DeliveryKind.CALLBACK, url=payment.callback_url)
            )
        if confirms_orders and event is EventType.COMPLETED:
            delivery_rows.append(_delivery(event_id, payment, now, kind=DeliveryKind.ORDER))
    event_rows = [_event(event_id, event, payment, happened_at=now) for event_id, event, payment in happened]
    await connection.execute(insert(events), event_rows)
    if delivery_rows:
        await connection.execute(insert(deliveries), delivery_rows)
    told: dict[UUID, tuple[Ref, ...]] = {}
    for row in delivery_rows:
        told[row["payment_id"]] = (*told.get(row["payment_id"], ()), Ref(row["id"], row["attempt"]))
    return told


async def tell_of_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID], *, now: datetime) -> None:
    """Tell the endpoints that these payments are completed and their orders were cancelled; due at once.

    Of one payment they are told once, however often it is found. Call it in the transaction that ends the delivery to
    the order service.
    """
    if not payment_ids:
        return
    found = await connection.execute(select(moved).where(any_of(moved.c.id, payment_ids)).order_by(moved.c.id))
    charged = {new_id(): Payment.of(row) for row in found.mappings()}
    rows = [_event(event_id, EventType.ORDER_CONFLICT, charged[event_id], happened_at=now) for event_id in charged]
    new = set((await connection.execute(INSERT_ONCE, rows)).scalars())
    endpoint_ids = (await _endpoints_by_type(connection)).get(EventType.ORDER_CONFLICT, ())
    delivery_rows = [
        {**row, "due_at": now}  # nobody publishes them: the relay brings them
        for event_id in new
        for row in _to_endpoints(event_id, charged[event_id], now, endpoint_ids)
    ]
    if delivery_rows:
        await connection.execute(insert(deliveries), delivery_rows)


INSERT_ONCE = upsert(events).on_conflict_do_nothing().returning(events.c.id)


async def _endpoints_by_type(connection: AsyncConnection) -> dict[str, list[UUID]]:
    """Who wants what, among the endpoints that are enabled as this transaction sees them."""
    found = await connection.execute(
        select(webhook_endpoints.c.id, webhook_endpoints.c.event_types).where(
            webhook_endpoints.c.enabled, webhook_endpoints.c.deleted_at.is_(None)
        )
    )
    wanted_by: dict[str, list[UUID]] = {}  # not EventType: a newer version may know more of them
    for endpoint in found:
        for event_type in endpoint.event_types:
            wanted_by.setdefault(event_type, []).append(endpoint.id)
    return wanted_by


def _event(event_id: UUID, event: EventType, payment: Payment, *, happened_at: datetime) -> dict[str, Any]:
    return {
        "id": event_id,
        "payment_id": payment.id,
        "sequence": payment.sequence,
        "type": event,
        "body": event_body(event, payment, happened_at=happened_at),
        "created_at": happened_at,
    }


def _to_endpoints(
    event_id: UUID, payment: Payment, now: datetime, endpoint_ids: Iterable[UUID]
) -> list[dict[str, Any]]:
    return [
        _delivery(event_id, payment, now, kind=DeliveryKind.ENDPOINT, endpoint_id=endpoint_id)
        for endpoint_id in endpoint_ids
    ]


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
