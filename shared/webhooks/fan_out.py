"""The fan-out of an event: one delivery for every endpoint that wants it, the callback URL and the order service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select

# ON CONFLICT without a target compiles for SQLite too.
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import FIRST_RELAY_AFTER_S, WorkItem, hold
from shared.database.tables import deliveries, webhook_endpoints
from shared.database.tables import events as events_table
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import EventType
from shared.ids import new_id
from shared.webhooks.deliveries import ClaimedDelivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a payment, frozen with the body that every receiver gets."""

    id: UUID
    type: EventType
    payment_id: UUID
    # The payment's sequence after the move that the event is about.
    sequence: int
    body: str = field(repr=False)
    happened_at: datetime
    # Where the payment's own callback goes; None if this event has none.
    callback_url: str | None
    # Whether the order service gets a delivery too: it confirms or cancels the order, as the type of the event says.
    updates_order: bool
    order_id: str
    # The principal that created the payment.
    owner: str
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class EmittedDeliveries:
    """The new deliveries of one payment: either to be published, or already leased by the caller."""

    to_publish: tuple[WorkItem, ...] = ()
    leased: tuple[ClaimedDelivery, ...] = ()

    def __add__(self, other: "EmittedDeliveries") -> "EmittedDeliveries":
        """Return the deliveries of both."""
        return EmittedDeliveries(self.to_publish + other.to_publish, self.leased + other.leased)


NO_DELIVERIES = EmittedDeliveries()


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The endpoints that are enabled as a transaction sees them, by the types of the events that they want.

    Keys are texts, not EventType: an endpoint may want a type that only a newer version knows.
    """

    by_type: "dict[str, list[_Recipient]]"

    def want(self, event_type: EventType) -> bool:
        """Return whether an endpoint wants events of this type."""
        return event_type in self.by_type


async def read_subscriptions(connection: AsyncConnection) -> Subscriptions:
    """Read which enabled endpoints want which event types."""
    columns = webhook_endpoints.c
    found = await connection.execute(
        select(columns.id, columns.created_by, columns.event_types, columns.url, columns.secret).where(
            columns.enabled, columns.deleted_at.is_(None)
        )
    )
    by_type: dict[str, list[_Recipient]] = {}
    for row in found:
        endpoint = _Recipient(DeliveryKind.ENDPOINT, row.id, row.created_by, row.url, row.secret)
        for event_type in row.event_types:
            by_type.setdefault(event_type, []).append(endpoint)
    return Subscriptions(by_type)


async def fan_out(
    connection: AsyncConnection,
    events: Sequence[Event],
    subscriptions: Subscriptions,
    *,
    lease_for_s: float | None,
    real_now: datetime | None = None,
) -> dict[UUID, EmittedDeliveries]:
    """Insert the events and a delivery for each of their recipients. Return the deliveries by payment.

    With `lease_for_s` the deliveries are inserted already leased for so many seconds of real time by the caller, which
    sends them at once; if it dies they are due when the lease ends. Without `real_now`, the events happened in real
    time.
    """
    if not events:
        return {}
    rows: list[dict[str, Any]] = []
    emitted: dict[UUID, EmittedDeliveries] = {}
    for event in events:
        is_leased = lease_for_s is not None
        due = _published(event.happened_at) if lease_for_s is None else hold(event.happened_at, lease_for_s, real_now)
        recipients = _recipients(event, subscriptions)
        new = [_row(event, one, due, is_leased=is_leased) for one in recipients]
        rows += new
        if lease_for_s is None:
            of_event = EmittedDeliveries(to_publish=tuple(WorkItem(row["id"], row["lease_version"]) for row in new))
        else:
            leased = zip(new, recipients, strict=True)
            of_event = EmittedDeliveries(leased=tuple(_leased(event, *each, signed_at=real_now) for each in leased))
        earlier = emitted.get(event.payment_id)
        emitted[event.payment_id] = earlier + of_event if earlier else of_event
    await connection.execute(insert(events_table), [_event_row(event) for event in events])
    if rows:
        await connection.execute(insert(deliveries), rows)
    return emitted


async def fan_out_once(connection: AsyncConnection, events: Sequence[Event]) -> None:
    """Insert those of the events that do not exist yet, with their deliveries, which are due at once.

    The caller publishes nothing: the relay brings these deliveries.
    """
    if not events:
        return
    inserted = set((await connection.execute(_INSERT_ONCE, [_event_row(event) for event in events])).scalars())
    subscriptions = await read_subscriptions(connection)
    rows = [
        _row(event, recipient, {"due_at": event.happened_at, "held_until": None}, is_leased=False)
        for event in events
        if event.id in inserted
        for recipient in _recipients(event, subscriptions)
    ]
    if rows:
        await connection.execute(insert(deliveries), rows)


_INSERT_ONCE = upsert(events_table).on_conflict_do_nothing().returning(events_table.c.id)


@dataclass(frozen=True, slots=True)
class _Recipient:
    """The receiver of one delivery."""

    kind: DeliveryKind
    endpoint_id: UUID | None = None
    # The principal that registered the endpoint.
    owner: str | None = None
    url: str | None = None
    encrypted_secret: str | None = field(default=None, repr=False)


def _recipients(event: Event, subscriptions: Subscriptions) -> list[_Recipient]:
    recipients = list(subscriptions.by_type.get(event.type, ()))
    if event.callback_url:
        recipients.append(_Recipient(DeliveryKind.CALLBACK, url=event.callback_url))
    if event.updates_order:
        recipients.append(_Recipient(DeliveryKind.ORDER))
    return recipients


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "payment_id": event.payment_id,
        "sequence": event.sequence,
        "type": event.type,
        "body": event.body,
        "created_at": event.happened_at,
    }


def _published(now: datetime) -> dict[str, datetime | None]:
    """Return when a delivery is due that the caller publishes at once."""
    return {"due_at": now + timedelta(seconds=FIRST_RELAY_AFTER_S), "held_until": None}


def _row(event: Event, recipient: _Recipient, due: Mapping[str, datetime | None], *, is_leased: bool) -> dict[str, Any]:
    return {
        "id": new_id(),
        "event_id": event.id,
        "payment_id": event.payment_id,
        "kind": recipient.kind,
        "endpoint_id": recipient.endpoint_id,
        # The URL of an endpoint may change, so it is read when the delivery is claimed.
        "url": recipient.url if recipient.kind is DeliveryKind.CALLBACK else None,
        "correlation_id": event.correlation_id,
        "status": DeliveryStatus.SENDING if is_leased else DeliveryStatus.PENDING,
        "lease_version": int(is_leased),
        "retries": 0,
        "attempts_total": 0,
        **due,
        "created_at": event.happened_at,
        "updated_at": event.happened_at,
    }


def _leased(event: Event, row: dict[str, Any], recipient: _Recipient, *, signed_at: datetime | None) -> ClaimedDelivery:
    """Return what `claim_deliveries` would return for a row that was inserted already leased."""
    joined = {
        "url": recipient.url,
        "event_type": event.type,
        "body": event.body,
        "owner": event.owner,
        "order_id": event.order_id,
        "encrypted_secret": recipient.encrypted_secret,
        "endpoint_owner": recipient.owner,
    }
    return ClaimedDelivery.of({**row, **joined}, claimed_at=event.happened_at, signed_at=signed_at)
