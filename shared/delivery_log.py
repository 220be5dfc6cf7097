"""Deliveries and their attempts as clients see them. It only reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import RowMapping, Select, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of
from shared.clock import rfc3339
from shared.deliveries import RECEIVER_URL
from shared.lifecycle import DeliveryKind, DeliveryStatus, EventType
from shared.models import deliveries, delivery_attempts, events, webhook_endpoints

ATTEMPTS_SHOWN_MAX = 50  # of one delivery, the latest: resending has no limit, an answer has
DELIVERIES_OF_PAYMENT_MAX = 1000  # a payment's events times the endpoints: more than anybody has


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAttempt:
    """A row of `delivery_attempts`."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: str | None  # None also where it was not asked for


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
    endpoint_created_by: str | None  # for the API to judge by; in no document
    url: str | None  # None: the order service
    status: DeliveryStatus
    tries: int
    due_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None
    has_bodies: bool  # the receiver's answers were asked for
    attempts: tuple[LoggedAttempt, ...]

    @classmethod
    def of(cls, row: RowMapping, attempts: Iterable[LoggedAttempt], *, has_bodies: bool) -> Self:
        """The delivery that a row of `_SEEN` holds."""
        values = {**row, "kind": DeliveryKind(row["kind"]), "status": DeliveryStatus(row["status"])}
        values["event_type"] = EventType(row["event_type"])
        return cls(**values, attempts=tuple(attempts), has_bodies=has_bodies)

    def document(self, *, with_url: bool = False) -> dict[str, Any]:
        """The delivery for an answer: `with_url` for the endpoint's creator, others know an endpoint by its name."""
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
            "tries": self.tries,
            "next_attempt_at": _text(next_attempt_at),
            "last_error": self.last_error,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "delivered_at": _text(self.delivered_at),
            "attempts": [self._attempt_document(attempt) for attempt in self.attempts],
        }

    def _attempt_document(self, attempt: LoggedAttempt) -> dict[str, Any]:
        return {
            "number": attempt.number,
            "started_at": rfc3339(attempt.started_at),
            "duration_ms": attempt.duration_ms,
            "status_code": attempt.status_code,
            "error": attempt.error,
            **({"response_body": attempt.response_body} if self.has_bodies else {}),
        }


async def deliveries_of_payment(
    connection: AsyncConnection, payment_id: UUID, *, with_bodies: bool = False
) -> list[Delivery]:
    """Every delivery of the payment's events, oldest first."""
    wanted = _seen().where(deliveries.c.payment_id == payment_id)
    return await _read(connection, wanted.order_by(deliveries.c.id).limit(DELIVERIES_OF_PAYMENT_MAX), with_bodies)


async def deliveries_of_endpoint(
    connection: AsyncConnection,
    endpoint_id: UUID,
    status: DeliveryStatus | None = None,
    *,
    limit: int,
    before_id: UUID | None = None,
    with_bodies: bool = False,
) -> list[Delivery]:
    """At most `limit` deliveries to the endpoint, newest first, older than the delivery `before_id`."""
    wanted = _seen().where(deliveries.c.endpoint_id == endpoint_id)
    if status is not None:
        wanted = wanted.where(deliveries.c.status == status)
    if before_id is not None:
        wanted = wanted.where(deliveries.c.id < before_id)
    return await _read(connection, wanted.order_by(deliveries.c.id.desc()).limit(limit), with_bodies)


async def find_delivery(
    connection: AsyncConnection, delivery_id: UUID, *, with_bodies: bool = False
) -> Delivery | None:
    """The delivery, whoever may see it."""
    found = await _read(connection, _seen().where(deliveries.c.id == delivery_id), with_bodies)
    return found[0] if found else None


def _seen() -> Select[Any]:
    """What `Delivery` is made of."""
    of_delivery = ("id", "event_id", "payment_id", "kind", "endpoint_id", "status", "tries", "due_at", "last_error")
    return (
        select(
            *deliveries.c[*of_delivery, "created_at", "updated_at", "delivered_at"],
            RECEIVER_URL,
            events.c.type.label("event_type"),
            webhook_endpoints.c.name.label("endpoint_name"),
            webhook_endpoints.c.created_by.label("endpoint_created_by"),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    )


async def _read(connection: AsyncConnection, wanted: Select[Any], with_bodies: bool) -> list[Delivery]:
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
        .where(any_of(delivery_attempts.c.delivery_id, ids))
        .where(delivery_attempts.c.number > deliveries.c.attempts_made - ATTEMPTS_SHOWN_MAX)
        .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.number)
    )
    attempts: dict[UUID, list[LoggedAttempt]] = {}
    for row in found.mappings():
        values = {name: row[name] for name in LoggedAttempt.__dataclass_fields__}
        attempts.setdefault(row["delivery_id"], []).append(LoggedAttempt(**values))
    return attempts


def _text(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
