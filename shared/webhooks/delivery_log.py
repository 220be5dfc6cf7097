"""Deliveries and their attempts as clients see them. It only reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import RowMapping, Select, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.id_list import id_in
from shared.database.tables import columns_of, deliveries, delivery_attempts, events, webhook_endpoints
from shared.lifecycle import DeliveryKind, DeliveryStatus, EventType
from shared.webhooks.deliveries import RECEIVER_URL

# Attempts of a delivery that an answer shows, the latest ones. An answer is bounded, and the number of resends is not.
ATTEMPTS_SHOWN_MAX = 50
# Deliveries of a payment that an answer shows: its events times the endpoints, and no installation has that many.
DELIVERIES_OF_PAYMENT_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAttempt:
    """A row of `delivery_attempts`."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    # None also if the caller did not ask for it.
    response_body: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery as clients may see it, with its latest attempts (at most 50) in order."""

    id: UUID
    event_id: UUID
    event_type: EventType
    payment_id: UUID
    kind: DeliveryKind
    endpoint_id: UUID | None
    endpoint_name: str | None
    # By this the API decides what a principal may see; no answer contains it.
    endpoint_created_by: str | None
    url: str | None  # None for the order service
    status: DeliveryStatus
    retries: int
    due_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None
    has_bodies: bool  # the receiver's answers were asked for
    attempts: tuple[LoggedAttempt, ...]

    @classmethod
    def of(cls, row: RowMapping, attempts: Iterable[LoggedAttempt], *, has_bodies: bool) -> Self:
        """Return the delivery of a row that `_select_deliveries` has found."""
        values = {**row, "kind": DeliveryKind(row["kind"]), "status": DeliveryStatus(row["status"])}
        values["event_type"] = EventType(row["event_type"])
        return cls(**values, attempts=tuple(attempts), has_bodies=has_bodies)

    def to_json(self, *, with_url: bool = False) -> dict[str, Any]:
        """Return the delivery for an answer.

        `with_url` is for admins, for the creator of the endpoint and, for a callback, for that of the payment. All
        others see only the name of the endpoint.
        """
        next_attempt_at = self.due_at if self.status == DeliveryStatus.PENDING else None
        return {
            "id": str(self.id),
            "event_id": str(self.event_id),
            "event_type": self.event_type.value,
            "payment_id": str(self.payment_id),
            "kind": self.kind.value,
            "endpoint_id": str(self.endpoint_id) if self.endpoint_id else None,
            "endpoint_name": self.endpoint_name,
            **({"url": self.url} if with_url else {}),
            "status": self.status.value,
            "tries": self.retries,
            "next_attempt_at": _text(next_attempt_at),
            "last_error": self.last_error,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "delivered_at": _text(self.delivered_at),
            "attempts": [self._attempt_to_json(attempt) for attempt in self.attempts],
        }

    def _attempt_to_json(self, attempt: LoggedAttempt) -> dict[str, Any]:
        return {
            "number": attempt.number,
            "started_at": rfc3339(attempt.started_at),
            "duration_ms": attempt.duration_ms,
            "status_code": attempt.status_code,
            "error": attempt.error,
            **({"response_body": attempt.response_body} if self.has_bodies else {}),
        }


async def deliveries_of_payment(connection: AsyncConnection, payment_id: UUID, *, with_bodies: bool) -> list[Delivery]:
    """Return the deliveries of the payment's events, the oldest first, at most 1,000.

    `with_bodies` adds to each attempt what the receiver answered.
    """
    wanted = _select_deliveries().where(deliveries.c.payment_id == payment_id)
    oldest = wanted.order_by(deliveries.c.id).limit(DELIVERIES_OF_PAYMENT_MAX)
    return await _read(connection, oldest, with_bodies=with_bodies)


async def deliveries_of_endpoint(
    connection: AsyncConnection,
    endpoint_id: UUID,
    status: DeliveryStatus | None,
    *,
    limit: int,
    before_id: UUID | None,
    with_bodies: bool,
) -> list[Delivery]:
    """Return at most `limit` deliveries to the endpoint, the newest first; with `before_id`, only older ones.

    `with_bodies` adds to each attempt what the receiver answered.
    """
    wanted = _select_deliveries().where(deliveries.c.endpoint_id == endpoint_id)
    if status is not None:
        wanted = wanted.where(deliveries.c.status == status)
    if before_id is not None:
        wanted = wanted.where(deliveries.c.id < before_id)
    newest = wanted.order_by(deliveries.c.id.desc()).limit(limit)
    return await _read(connection, newest, with_bodies=with_bodies)


async def find_delivery(connection: AsyncConnection, delivery_id: UUID) -> Delivery | None:
    """Return the delivery without the receiver's answers; None if there is none.

    The caller checks whether its principal may see it.
    """
    found = await _read(connection, _select_deliveries().where(deliveries.c.id == delivery_id), with_bodies=False)
    return found[0] if found else None


def _select_deliveries() -> Select[Any]:
    """Return the query for all that `Delivery` holds, except its attempts."""
    of_delivery = ("id", "event_id", "payment_id", "kind", "endpoint_id", "status", "retries", "due_at", "last_error")
    return (
        select(
            *columns_of(deliveries, *of_delivery, "created_at", "updated_at", "delivered_at"),
            RECEIVER_URL,
            events.c.type.label("event_type"),
            webhook_endpoints.c.name.label("endpoint_name"),
            webhook_endpoints.c.created_by.label("endpoint_created_by"),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    )


async def _read(connection: AsyncConnection, wanted: Select[Any], *, with_bodies: bool) -> list[Delivery]:
    rows = (await connection.execute(wanted)).mappings().all()
    attempts = await _attempts_of(connection, [row["id"] for row in rows], with_bodies)
    return [Delivery.of(row, attempts.get(row["id"], ()), has_bodies=with_bodies) for row in rows]


async def _attempts_of(
    connection: AsyncConnection, ids: Sequence[UUID], with_bodies: bool
) -> dict[UUID, list[LoggedAttempt]]:
    if not ids:
        return {}
    body = delivery_attempts.c.response_body if with_bodies else null()
    found = await connection.execute(
        select(
            *delivery_attempts.c["delivery_id", "number", "started_at", "duration_ms", "status_code", "error"],
            body.label("response_body"),
        )
        .join(deliveries, deliveries.c.id == delivery_attempts.c.delivery_id)
        .where(id_in(delivery_attempts.c.delivery_id, ids))
        .where(delivery_attempts.c.number > deliveries.c.attempts_total - ATTEMPTS_SHOWN_MAX)
        .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.number)
    )
    attempts: dict[UUID, list[LoggedAttempt]] = {}
    for row in found.mappings():
        values = {name: row[name] for name in LoggedAttempt.__dataclass_fields__}
        attempts.setdefault(row["delivery_id"], []).append(LoggedAttempt(**values))
    return attempts


def _text(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
