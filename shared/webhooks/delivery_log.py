"""Deliveries and their attempts as clients see them. It only reads."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, case, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.id_list import id_in
from shared.database.tables import columns_of, deliveries, delivery_attempts, events, payments, webhook_endpoints
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import EventType
from shared.webhooks.attempts import cut_text
from shared.webhooks.deliveries import RECEIVER_URL

# Attempts of a delivery that an answer shows, the latest ones. An answer is bounded, and the number of resends is not.
ATTEMPTS_SHOWN_MAX = 50
# Attempts on one page of a list, which ends early for them: each may have a URL of 2 KB.
ATTEMPTS_ON_PAGE_MAX = 500
# As in `Connect call failed ('10.0.0.1', 5432)` and `certificate is not valid for 'localhost'`.
_ADDRESSES = re.compile(r" \('[^)]*\)| for '[^']*'")
# Attempts whose answers are shown, the latest ones, of one delivery only: 20 KB each.
BODIES_SHOWN_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAttempt:
    """A row of `delivery_attempts`."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    url: str | None  # None for the order service, and if it is not known
    # None also if the caller did not ask for it, and in older attempts.
    response_body: str | None

    def to_json(self, *, with_url: bool, with_body: bool) -> dict[str, Any]:
        """Return the attempt for an answer; see `Delivery.to_json`."""
        return {
            "number": self.number,
            "started_at": rfc3339(self.started_at),
            "duration_ms": self.duration_ms,
            "status_code": self.status_code,
            "error": self.error if with_url else _without_addresses(self.error),
            **({"url": self.url} if with_url else {}),
            **({"response_body": self.response_body} if with_body else {}),
        }


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
    # By these two the API decides what a principal may see; no answer contains them.
    endpoint_created_by: str | None
    payment_created_by: str
    url: str | None  # None for the order service
    status: DeliveryStatus
    retries: int
    due_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None
    attempts: tuple[LoggedAttempt, ...]

    @classmethod
    def of(cls, row: RowMapping, attempts: Iterable[LoggedAttempt]) -> Self:
        """Return the delivery of a row that `_select_deliveries` has found."""
        values = {name: value for name, value in row.items() if name != "attempts_total"}
        values |= {"kind": DeliveryKind(row["kind"]), "status": DeliveryStatus(row["status"])}
        values["event_type"] = EventType(row["event_type"])
        return cls(**values, attempts=tuple(attempts))

    def to_json(self, *, with_url: bool = False, with_bodies: bool = False) -> dict[str, Any]:
        """Return the delivery for an answer.

        `with_url` is for admins, for the creator of the endpoint and, for a callback, for that of the payment. All
        others see only the name of the endpoint. `with_bodies` adds to each attempt what the receiver answered.
        """
        # One that a relay has published is due by real time, which may be behind the delivery itself.
        due_at = max(self.due_at, self.updated_at) if self.due_at else None
        next_attempt_at = due_at if self.status == DeliveryStatus.PENDING else None
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
            "last_error": self.last_error if with_url else _without_addresses(self.last_error),
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "delivered_at": _text(self.delivered_at),
            "attempts": [attempt.to_json(with_url=with_url, with_body=with_bodies) for attempt in self.attempts],
        }


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """The deliveries on a page of a list, which has a next page if `has_more`."""

    deliveries: list[Delivery]
    has_more: bool


async def deliveries_of_payment(
    connection: AsyncConnection, payment_id: UUID, *, limit: int, after_id: UUID | None
) -> DeliveryPage:
    """Return at most `limit` deliveries of the payment's events, the oldest first; with `after_id`, only newer ones."""
    wanted = _select_deliveries().where(deliveries.c.payment_id == payment_id)
    if after_id is not None:
        wanted = wanted.where(deliveries.c.id > after_id)
    return await _read_page(connection, wanted.order_by(deliveries.c.id), limit)


async def deliveries_of_endpoint(
    connection: AsyncConnection,
    endpoint_id: UUID,
    status: DeliveryStatus | None,
    *,
    limit: int,
    before_id: UUID | None,
) -> DeliveryPage:
    """Return at most `limit` deliveries to the endpoint, the newest first; with `before_id`, only older ones."""
    wanted = _select_deliveries().where(deliveries.c.endpoint_id == endpoint_id)
    if status is not None:
        wanted = wanted.where(deliveries.c.status == status)
    if before_id is not None:
        wanted = wanted.where(deliveries.c.id < before_id)
    return await _read_page(connection, wanted.order_by(deliveries.c.id.desc()), limit)


async def find_delivery(
    connection: AsyncConnection, delivery_id: UUID, *, with_bodies: bool = False
) -> Delivery | None:
    """Return the delivery; None if there is none. `with_bodies` adds what the receiver answered last.

    The caller checks what its principal may see.
    """
    found = await connection.execute(_select_deliveries().where(deliveries.c.id == delivery_id))
    row = found.mappings().one_or_none()
    if row is None:
        return None
    attempts = await _attempts_of(connection, [delivery_id], _LATEST_BODIES if with_bodies else _NO_BODY)
    return Delivery.of(row, attempts.get(delivery_id, ()))


_NO_BODY: ColumnElement[Any] = null()
_LATEST_BODIES: ColumnElement[Any] = case(
    (
        delivery_attempts.c.number > deliveries.c.attempts_total - BODIES_SHOWN_MAX,
        delivery_attempts.c.response_body,
    ),
    else_=null(),
)


def _select_deliveries() -> Select[Any]:
    """Return the query for all that `Delivery` holds, except its attempts."""
    of_delivery = ("id", "event_id", "payment_id", "kind", "endpoint_id", "status", "retries", "due_at", "last_error")
    return (
        select(
            *columns_of(deliveries, *of_delivery, "created_at", "updated_at", "delivered_at", "attempts_total"),
            RECEIVER_URL,
            events.c.type.label("event_type"),
            webhook_endpoints.c.name.label("endpoint_name"),
            webhook_endpoints.c.created_by.label("endpoint_created_by"),
            payments.c.created_by.label("payment_created_by"),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .join(payments, payments.c.id == deliveries.c.payment_id)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    )


async def _read_page(connection: AsyncConnection, wanted: Select[Any], limit: int) -> DeliveryPage:
    """Read a page. It has at least one delivery if there is one, and no more attempts than ATTEMPTS_ON_PAGE_MAX."""
    rows = (await connection.execute(wanted.limit(limit + 1))).mappings().all()
    shown: list[RowMapping] = []
    left = ATTEMPTS_ON_PAGE_MAX
    for row in rows[:limit]:
        left -= min(row["attempts_total"], ATTEMPTS_SHOWN_MAX)
        if shown and left < 0:
            break
        shown.append(row)
    attempts = await _attempts_of(connection, [row["id"] for row in shown], _NO_BODY)
    found = [Delivery.of(row, attempts.get(row["id"], ())) for row in shown]
    return DeliveryPage(found, has_more=len(rows) > len(shown))


async def _attempts_of(
    connection: AsyncConnection, ids: Sequence[UUID], body: ColumnElement[Any]
) -> dict[UUID, list[LoggedAttempt]]:
    if not ids:
        return {}
    found = await connection.execute(
        select(
            *delivery_attempts.c["delivery_id", "number", "started_at", "duration_ms", "status_code", "error", "url"],
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
        if values["response_body"] is not None:
            # Answers that 0.1 stored may be longer.
            values["response_body"] = cut_text(values["response_body"])
        attempts.setdefault(row["delivery_id"], []).append(LoggedAttempt(**values))
    return attempts


def _without_addresses(error: str | None) -> str | None:
    """Return an error for those who may not see the URL: texts that 0.1 stored may name its address or its host."""
    return None if error is None else _ADDRESSES.sub("", error)


def _text(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
