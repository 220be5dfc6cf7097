"""The events of payments: what happened, with the body as it will be sent. The fan-out to receivers is in webhooks."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.event_types import CALLBACK_EVENTS, EVENT_OF_MOVE, REFUND_EVENT_OF_REASON, WRITTEN_IF_WANTED, EventType
from shared.ids import new_id
from shared.payments.find import lock_whole_many
from shared.payments.history import Move
from shared.payments.payment import Payment
from shared.webhooks.fan_out import EmittedDeliveries, Event, fan_out, fan_out_once, read_subscriptions
from shared.webhooks.order_deliveries import having_order_conflicts


async def emit(
    connection: AsyncConnection,
    moves: Sequence[Move],
    *,
    now: datetime,
    confirms_orders: bool = False,
    lease_for_s: float | None = None,
    real_now: datetime | None = None,
) -> dict[UUID, EmittedDeliveries]:
    """Insert the event that each move calls for, with its deliveries. Return the deliveries by payment.

    An event of a type in WRITTEN_IF_WANTED is not even built unless an endpoint wants its type at this moment.

    With `confirms_orders` every completed payment also has a delivery to the order service. See `fan_out` for
    `lease_for_s` and `real_now`. Call this in the transaction of the moves.
    """
    called_for = [
        (move.payment, event) for move in moves if (event := EVENT_OF_MOVE.get((move.payment.status, move.reason)))
    ]
    if not called_for:
        return {}
    subscriptions = await read_subscriptions(connection)
    happened = [
        _event(event, payment, happened_at=now, updates_order=confirms_orders and event is EventType.COMPLETED)
        for payment, event in called_for
        if event not in WRITTEN_IF_WANTED or subscriptions.want(event)
    ]
    return await fan_out(connection, happened, subscriptions, lease_for_s=lease_for_s, real_now=real_now)


async def emit_steps(
    connection: AsyncConnection,
    steps: Sequence[tuple[Move, dict[str, Any]]],
    *,
    now: datetime,
    cancels_orders: bool = False,
    lease_for_s: float | None = None,
) -> dict[UUID, EmittedDeliveries]:
    """Insert the events of refunds' steps, with their deliveries. Return the deliveries by payment.

    A step is the payment's move and the refund as clients see it. The refund's event comes before the payment's. With
    `cancels_orders` every REFUNDED payment also has a delivery to the order service.
    """
    happened: list[Event] = []
    for move, refund in steps:
        of_refund = REFUND_EVENT_OF_REASON[move.reason]
        happened.append(_event(of_refund, move.payment, happened_at=now, refund=refund))
        if of_payment := EVENT_OF_MOVE.get((move.payment.status, move.reason)):
            updates_order = cancels_orders and of_payment is EventType.REFUNDED
            happened.append(
                _event(of_payment, move.payment, happened_at=now, updates_order=updates_order, refund=refund)
            )
    return await fan_out(connection, happened, await read_subscriptions(connection), lease_for_s=lease_for_s)


async def emit_order_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID], *, now: datetime) -> None:
    """Insert the event that these payments are completed while their orders were cancelled; deliveries are due now.

    A payment has this event once, however often the conflict is found and whatever moves it meanwhile. Call this in the
    transaction that records the attempt at the order service.
    """
    if not payment_ids:
        return
    # The lock comes first: the payment is not moved, and no other transaction emits its event, until this one ends.
    charged = await lock_whole_many(connection, payment_ids)
    emitted = await having_order_conflicts(connection, payment_ids)
    await fan_out_once(
        connection,
        [
            _event(EventType.ORDER_CONFLICT, charged[payment_id], happened_at=now)
            for payment_id in sorted(charged.keys() - emitted)
        ],
    )


def _event(
    event_type: EventType,
    payment: Payment,
    *,
    happened_at: datetime,
    updates_order: bool = False,
    refund: dict[str, Any] | None = None,
) -> Event:
    event_id = new_id()
    return Event(
        id=event_id,
        type=event_type,
        payment_id=payment.id,
        sequence=payment.sequence,
        body=event_body(event_id, event_type, payment, happened_at=happened_at, refund=refund),
        happened_at=happened_at,
        callback_url=payment.callback_url if event_type in CALLBACK_EVENTS else None,
        updates_order=updates_order,
        order_id=payment.order_id,
        owner=payment.created_by,
        correlation_id=payment.correlation_id,
    )


def event_body(
    event_id: UUID,
    event_type: EventType,
    payment: Payment,
    *,
    happened_at: datetime,
    refund: dict[str, Any] | None = None,
) -> str:
    """Return the body of an event (the payload of Standard Webhooks). What is stored is what is signed and sent.

    An event that a refund brought names it, and shows it as it was then.
    """
    of_refund = {"refund_id": refund["id"], "refund": refund} if refund else {}
    return orjson.dumps(
        {
            "id": str(event_id),
            "type": event_type.value,
            "timestamp": rfc3339(happened_at),
            "data": {"payment": payment.to_json(), "sequence": payment.sequence, **of_refund},
        }
    ).decode()
