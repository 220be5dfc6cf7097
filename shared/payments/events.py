"""The events of payments: what happened, with the body as it will be sent. The fan-out to receivers is in webhooks."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.id_list import id_in
from shared.database.tables import columns_of
from shared.database.tables import payments as payments_table
from shared.ids import new_id
from shared.lifecycle import EVENT_OF_STATUS, TERMINAL_EVENTS, EventType
from shared.payments.payment import Payment
from shared.webhooks.fan_out import EmittedDeliveries, Event, fan_out, fan_out_once


async def emit(
    connection: AsyncConnection,
    payments: Sequence[Payment],
    *,
    now: datetime,
    confirms_orders: bool = False,
    lease_for_s: float | None = None,
) -> dict[UUID, EmittedDeliveries]:
    """Insert the event that each payment's status calls for, with its deliveries. Return the deliveries by payment.

    With `confirms_orders` every completed payment also has a delivery to the order service. See `fan_out` for
    `lease_for_s`. Call this in the transaction that moved the payments, with the payments as they are after the move.
    """
    happened = [
        _event(event, payment, happened_at=now, confirms_orders=confirms_orders)
        for payment in payments
        if (event := EVENT_OF_STATUS[payment.status])
    ]
    return await fan_out(connection, happened, lease_for_s=lease_for_s)


async def emit_order_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID], *, now: datetime) -> None:
    """Insert the event that these payments are completed while their orders were cancelled; deliveries are due now.

    A payment has this event once, however often the conflict is found. Call this in the transaction that ends the
    delivery to the order service.
    """
    if not payment_ids:
        return
    found = await connection.execute(
        select(*columns_of(payments_table)).where(id_in(payments_table.c.id, payment_ids)).order_by(payments_table.c.id)
    )
    charged = [Payment.of(row) for row in found.mappings()]
    await fan_out_once(connection, [_event(EventType.ORDER_CONFLICT, payment, happened_at=now) for payment in charged])


def _event(event_type: EventType, payment: Payment, *, happened_at: datetime, confirms_orders: bool = False) -> Event:
    event_id = new_id()
    return Event(
        id=event_id,
        type=event_type,
        payment_id=payment.id,
        sequence=payment.sequence,
        body=event_body(event_id, event_type, payment, happened_at=happened_at),
        happened_at=happened_at,
        callback_url=payment.callback_url if event_type in TERMINAL_EVENTS else None,
        confirms_order=confirms_orders and event_type is EventType.COMPLETED,
        order_id=payment.order_id,
        owner=payment.created_by,
        correlation_id=payment.correlation_id,
    )


def event_body(event_id: UUID, event_type: EventType, payment: Payment, *, happened_at: datetime) -> str:
    """Return the body of an event (the payload of Standard Webhooks). What is stored is what is signed and sent."""
    return orjson.dumps(
        {
            "id": str(event_id),
            "type": event_type.value,
            "timestamp": rfc3339(happened_at),
            "data": {"payment": payment.to_json(), "sequence": payment.sequence},
        }
    ).decode()
