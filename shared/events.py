"""What is worth telling: events with the body as it will be sent, and a delivery for everyone who wants it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert  # without a target it compiles on SQLite too
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of
from shared.deliveries import ClaimedDelivery
from shared.documents import Payment, event_body
from shared.ids import new_id
from shared.leases import PICK_UP_S, Ref
from shared.lifecycle import EVENT_OF_STATUS, TERMINAL_EVENTS, DeliveryKind, DeliveryStatus, EventType
from shared.models import deliveries, events, webhook_endpoints
from shared.models import payments as moved


@dataclass(frozen=True, slots=True)
class Told:
    """The new deliveries of one payment: tickets for whoever comes first, or claimed for the caller."""

    tickets: tuple[Ref, ...] = ()
    claimed: tuple[ClaimedDelivery, ...] = ()


NOBODY = Told()


async def tell(
    connection: AsyncConnection,
    payments: Sequence[Payment],
    *,
    now: datetime,
    confirms_orders: bool = False,
    claim_for_s: float | None = None,
) -> dict[UUID, Told]:
    """Insert the event that each payment's status calls for, with its deliveries, by payment.

    With `confirms_orders` the order service is told of every completed payment. With `claim_for_s` the deliveries are
    written down as claimed by the caller, who sends them at once; if it dies they are due when that time is over.
    Call it in the transaction that moved the payments, with the payments as they are after the move.
    """
    happened = [(payment, event) for payment in payments if (event := EVENT_OF_STATUS[payment.status])]
    if not happened:
        return {}
    endpoints = await _endpoints_by_type(connection)
    event_rows: list[dict[str, Any]] = []
    delivery_rows: list[dict[str, Any]] = []
    told: dict[UUID, Told] = {}
    for payment, event in happened:
        event_rows.append(_event(event, payment, happened_at=now))
        receivers = _receivers(payment, event, endpoints.get(event, ()), confirms_orders=confirms_orders)
        rows = [_delivery(event_rows[-1], payment, receiver, now, claim_for_s) for receiver in receivers]
        delivery_rows += rows
        if claim_for_s is None:
            told[payment.id] = Told(tickets=tuple(Ref(row["id"], row["attempt"]) for row in rows))
        else:
            claimed = zip(rows, receivers, strict=True)
            told[payment.id] = Told(claimed=tuple(_claimed(event_rows[-1], payment, *each) for each in claimed))
    await connection.execute(insert(events), event_rows)
    if delivery_rows:
        await connection.execute(insert(deliveries), delivery_rows)
    return told


async def tell_of_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID], *, now: datetime) -> None:
    """Tell the endpoints that these payments are completed and their orders were cancelled; due at once.

    Of one payment they are told once, however often it is found. Call it in the transaction that ends the delivery to
    the order service.
    """
    if not payment_ids:
        return
    found = await connection.execute(select(moved).where(any_of(moved.c.id, payment_ids)).order_by(moved.c.id))
    charged = [Payment.of(row) for row in found.mappings()]
    rows = [_event(EventType.ORDER_CONFLICT, payment, happened_at=now) for payment in charged]
    new = set((await connection.execute(INSERT_ONCE, rows)).scalars())
    endpoints = (await _endpoints_by_type(connection)).get(EventType.ORDER_CONFLICT, ())
    delivery_rows = [
        {**_delivery(row, payment, endpoint, now), "due_at": now}  # nobody publishes them: the relay brings them
        for row, payment in zip(rows, charged, strict=True)
        if row["id"] in new
        for endpoint in endpoints
    ]
    if delivery_rows:
        await connection.execute(insert(deliveries), delivery_rows)


INSERT_ONCE = upsert(events).on_conflict_do_nothing().returning(events.c.id)


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Whom a delivery is for."""

    kind: DeliveryKind
    endpoint_id: UUID | None = None
    url: str | None = None
    encrypted_secret: str | None = field(default=None, repr=False)


async def _endpoints_by_type(connection: AsyncConnection) -> dict[str, list[_Receiver]]:
    """Who wants what, among the endpoints that are enabled as this transaction sees them."""
    columns = webhook_endpoints.c
    found = await connection.execute(
        select(columns.id, columns.event_types, columns.url, columns.secret).where(
            columns.enabled, columns.deleted_at.is_(None)
        )
    )
    wanted_by: dict[str, list[_Receiver]] = {}  # not EventType: a newer version may know more of them
    for row in found:
        endpoint = _Receiver(DeliveryKind.ENDPOINT, row.id, row.url, row.secret)
        for event_type in row.event_types:
            wanted_by.setdefault(event_type, []).append(endpoint)
    return wanted_by


def _receivers(
    payment: Payment, event: EventType, endpoints: Iterable[_Receiver], *, confirms_orders: bool
) -> list[_Receiver]:
    receivers = list(endpoints)
    if payment.callback_url and event in TERMINAL_EVENTS:
        receivers.append(_Receiver(DeliveryKind.CALLBACK, url=payment.callback_url))
    if confirms_orders and event is EventType.COMPLETED:
        receivers.append(_Receiver(DeliveryKind.ORDER))
    return receivers


def _event(event: EventType, payment: Payment, *, happened_at: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "payment_id": payment.id,
        "sequence": payment.sequence,
        "type": event,
        "body": event_body(event, payment, happened_at=happened_at),
        "created_at": happened_at,
    }


def _delivery(
    event: Mapping[str, Any], payment: Payment, receiver: _Receiver, now: datetime, claim_for_s: float | None = None
) -> dict[str, Any]:
    is_claimed = claim_for_s is not None
    return {
        "id": new_id(),
        "event_id": event["id"],
        "payment_id": payment.id,
        "kind": receiver.kind,
        "endpoint_id": receiver.endpoint_id,
        "url": receiver.url if receiver.kind is DeliveryKind.CALLBACK else None,  # an endpoint's may change
        "correlation_id": payment.correlation_id,
        "status": DeliveryStatus.SENDING if is_claimed else DeliveryStatus.PENDING,
        "attempt": int(is_claimed),
        "tries": 0,
        "attempts_made": 0,
        "due_at": now + timedelta(seconds=PICK_UP_S if claim_for_s is None else claim_for_s),
        "created_at": now,
        "updated_at": now,
    }


def _claimed(
    event: Mapping[str, Any], payment: Payment, row: Mapping[str, Any], receiver: _Receiver
) -> ClaimedDelivery:
    """What `claim_deliveries` would answer for a row that was written as claimed."""
    return ClaimedDelivery(
        **{name: row[name] for name in ("id", "attempt", "tries", "attempts_made", "kind", "payment_id", "event_id")},
        endpoint_id=receiver.endpoint_id,
        correlation_id=payment.correlation_id,
        url=receiver.url or "",
        order_id=payment.order_id,
        body=event["body"].encode(),
        encrypted_secret=receiver.encrypted_secret,
        owner=payment.created_by,
        claimed_at=row["created_at"],
        lease_until=row["due_at"],
    )
