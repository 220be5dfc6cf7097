"""The life of a delivery from its claim to its end.

                  claimed            2xx      ┌───────────┐
    ┌─────────┐ ───────────▶ ┌─────────┐ ────▶│ delivered │
    │ pending │              │ sending │      └───────────┘
    └─────────┘ ◀─────────── └─────────┘ ────▶┌───────────┐   410, an order that refuses the update,
        ▲      failed; due     │  ▲  │        │ exhausted │   or the schedule is used up
        │      later           │  └──┘        └───────────┘
        │                      ▼  lease expired
        │                ┌───────────┐
        └── resent ──────│ cancelled │  the endpoint was disabled or deleted, or the order must not be updated any more
          (from any end) └───────────┘  (from pending, too); delivered after all if a running attempt is answered 2xx

This package is the only writer of `deliveries.status`. It sends nothing, and it does not decide what the answer of a
receiver means: the worker does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Update, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.leases import CLOCK_SKEW_MAX_S, REPUBLISHED_AFTER_S, WorkItem, claim, hold, lock
from shared.database.tables import ERROR_CHARS_MAX, columns_of, deliveries, events, payments, webhook_endpoints
from shared.delivery_lifecycle import OPEN_DELIVERY, DeliveryKind, DeliveryStatus
from shared.webhooks.flows import Flow
from shared.webhooks.order_deliveries import KnownOfOrder, read_order_facts
from shared.webhooks.url_policy import origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """Everything that one attempt to send a delivery needs.

    `id` is the receiver's deduplication key, the same over all attempts. `retries` counts the attempts of this schedule
    before this one, the first attempt included. `claimed_at` is the start of this attempt. `signed_at` is the same
    moment in real time, the timestamp of the signature; None = service time is real time. `url` is empty for the order
    service, whose address is a setting. Without `encrypted_secret` the delivery is signed with the secret of its
    `owner`, the principal that created the payment.
    """

    id: UUID
    lease_version: int
    retries: int
    kind: DeliveryKind
    payment_id: UUID
    endpoint_id: UUID | None
    correlation_id: str | None
    url: str
    order_id: str
    event_type: str
    body: bytes = field(repr=False)
    encrypted_secret: str | None = field(repr=False)
    owner: str
    claimed_at: datetime
    # The principal that registered the endpoint; None for what is not sent to an endpoint.
    endpoint_owner: str | None = None
    known_of_order: KnownOfOrder | None = None
    signed_at: datetime | None = None

    @classmethod
    def of(
        cls,
        row: Mapping[Any, Any],
        *,
        claimed_at: datetime,
        known_of_order: KnownOfOrder | None = None,
        signed_at: datetime | None = None,
    ) -> Self:
        """Return the delivery of a row of `deliveries`, joined with what is sent, where to and in whose name."""
        return cls(
            id=row["id"],
            lease_version=row["lease_version"],
            retries=row["retries"],
            kind=DeliveryKind(row["kind"]),
            payment_id=row["payment_id"],
            endpoint_id=row["endpoint_id"],
            correlation_id=row["correlation_id"],
            url=row["url"] or "",
            order_id=row["order_id"],
            event_type=row["event_type"],
            body=row["body"].encode(),
            encrypted_secret=row["encrypted_secret"],
            owner=row["owner"],
            endpoint_owner=row["endpoint_owner"],
            claimed_at=claimed_at,
            known_of_order=known_of_order,
            signed_at=signed_at,
        )

    @property
    def sent_at(self) -> datetime:
        """The start of this attempt in real time, which the receiver goes by."""
        return self.signed_at or self.claimed_at

    @property
    def work_item(self) -> WorkItem:
        """The row with the lease version of this claim, which guards what is written under it."""
        return WorkItem(self.id, self.lease_version)

    @property
    def flow(self) -> Flow:
        """The flow that the delivery belongs to."""
        return _flow_of(self.url, self.kind, self.endpoint_id, self.endpoint_owner or self.owner)


def _flow_of(url: str | None, kind: str, endpoint_id: UUID | None, owner: str) -> Flow:
    if kind == DeliveryKind.ORDER:
        return Flow(kind, kind, kind)
    return Flow(origin(url or ""), str(endpoint_id) if endpoint_id else owner, owner)


async def flows_of(connection: AsyncConnection, items: Sequence[WorkItem]) -> list[tuple[WorkItem, Flow]]:
    """Return those of `items` that are still open under their lease version, each with its flow.

    This only reads: the claim looks again.
    """
    if not items:
        return []
    found = await connection.execute(_WITH_FLOWS, {"ids": [item.id for item in items]})
    flows = {
        WorkItem(row.id, row.lease_version): _flow_of(row.url, row.kind, row.endpoint_id, row.flow_owner)
        for row in found
    }
    return [(item, flows[item]) for item in dict.fromkeys(items) if item in flows]


@dataclass(frozen=True, slots=True)
class Postponement:
    """An item that is to be due in `wait_s` seconds; `is_leased` if its delivery was inserted already leased."""

    item: WorkItem
    wait_s: float
    is_leased: bool

    @property
    def status(self) -> DeliveryStatus:
        """The status of the delivery while nothing else has happened to it."""
        return DeliveryStatus.SENDING if self.is_leased else DeliveryStatus.PENDING


async def claim_deliveries(
    connection: AsyncConnection,
    now: datetime,
    items: Sequence[WorkItem],
    *,
    lease_s: float,
    real_now: datetime | None = None,
) -> list[ClaimedDelivery | None]:
    """Claim the delivery of each item for `lease_s` seconds of real time, in the order of `items`.

    The list has None where there is nothing to send: another worker was first, or the delivery has ended, or is due
    only later than 40 s from now. It also has None where the endpoint was disabled or deleted, or the order must not be
    updated any more: then the delivery ends here as cancelled.
    """
    statement = (
        update(deliveries)
        # A work item is published when its row is due, and the relay then puts the row off by 30 s. A later due time
        # belongs to the next attempt, so this item is outdated. The 10 s allow for clock skew of the relay. Real time,
        # in which the relay counts, is never ahead.
        .where(deliveries.c.due_at <= now + timedelta(seconds=REPUBLISHED_AFTER_S + CLOCK_SKEW_MAX_S))
        .where(deliveries.c.status.in_(OPEN_DELIVERY))
        .values(status=DeliveryStatus.SENDING, **hold(now, lease_s, real_now), updated_at=now)
    )
    ids = [row["id"] for row in await claim(connection, deliveries, items, statement)]
    claimed: dict[WorkItem, ClaimedDelivery] = {}
    unwanted: dict[str, list[UUID]] = {}
    rows = await _with_receivers(connection, ids)
    of_orders = [row for row in rows if row["kind"] == DeliveryKind.ORDER]
    facts = await read_order_facts(connection, of_orders)
    for row in rows:
        if reason := facts.unwanted.get(row["id"]) or _why_unwanted(row):
            unwanted.setdefault(reason, []).append(row["id"])
        else:
            claimed[WorkItem(row["id"], row["lease_version"] - 1)] = ClaimedDelivery.of(
                row, claimed_at=now, known_of_order=facts.known.get(row["id"]), signed_at=real_now
            )
    for reason, ended in unwanted.items():
        await connection.execute(_ending(now, reason).where(id_in(deliveries.c.id, ended)))
    return [claimed.pop(item, None) for item in items]


async def release(connection: AsyncConnection, now: datetime, items: Sequence[WorkItem]) -> int:
    """Give up claims under which nothing was sent. Return how many of them still held.

    These deliveries are due now, and no attempt is counted or logged.
    """
    held = await lock(connection, deliveries, items, deliveries.c.status)
    ids = [item.id for item, row in held.items() if row["status"] == DeliveryStatus.SENDING]
    await connection.execute(
        update(deliveries)
        .where(id_in(deliveries.c.id, ids))
        .values(status=DeliveryStatus.PENDING, due_at=now, held_until=None, updated_at=now)
    )
    return len(ids)


async def postpone(connection: AsyncConnection, now: datetime, postponements: Sequence[Postponement]) -> int:
    """Let deliveries that wait for their attempt be due later, and give up their leases. Return how many.

    No attempt is counted or logged. What was claimed, ended or published again under another lease stays as it is.
    """
    held = await lock(connection, deliveries, [each.item for each in postponements], deliveries.c.status)
    moved = [each for each in postponements if each.item in held and held[each.item]["status"] == each.status]
    if moved:
        rows = [{"moved_id": each.item.id, "due_at": now + timedelta(seconds=each.wait_s)} for each in moved]
        await connection.execute(_POSTPONE, [{**row, "updated_at": now} for row in rows])
    return len(moved)


_POSTPONE = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("moved_id"))
    .values(
        status=DeliveryStatus.PENDING,
        due_at=bindparam("due_at"),
        held_until=None,
        updated_at=bindparam("updated_at"),
    )
)


async def cancel_open(connection: AsyncConnection, now: datetime, reason: str, which: ColumnElement[bool]) -> int:
    """End the open deliveries of `which` as cancelled, `reason` being their last error. Return how many.

    For those of an endpoint, call this after the UPDATE that disables or deletes it, in the same transaction: every
    caller then locks the endpoint before its deliveries. A delivery that is being sent may arrive all the same. It
    keeps its lease version, by which the record of that attempt finds it.
    """
    is_open = deliveries.c.status.in_(OPEN_DELIVERY)
    # In the order of the ids, so that two batches never deadlock.
    wanted = select(deliveries.c.id).where(which, is_open).order_by(deliveries.c.id).with_for_update()
    ended = await connection.execute(_ending(now, reason).where(deliveries.c.id.in_(wanted), is_open))
    return ended.rowcount


def sanitize_error(error: str | None) -> str | None:
    """Return `error` as every database accepts it, at most 255 characters: texts of exceptions may hold anything."""
    if error is None:
        return None
    return error.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")[:ERROR_CHARS_MAX]


RECEIVER_URL = func.coalesce(deliveries.c.url, webhook_endpoints.c.url).label("url")

_WITH_FLOWS = (
    select(
        *columns_of(deliveries, "id", "lease_version", "kind", "endpoint_id"),
        RECEIVER_URL,
        func.coalesce(webhook_endpoints.c.created_by, payments.c.created_by).label("flow_owner"),
    )
    .join(payments, payments.c.id == deliveries.c.payment_id)
    .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    .where(id_in(deliveries.c.id, "ids"), deliveries.c.status.in_(OPEN_DELIVERY))
)

_WITH_RECEIVERS = (
    select(
        *columns_of(
            deliveries, "id", "kind", "payment_id", "endpoint_id", "correlation_id", "lease_version", "retries"
        ),
        RECEIVER_URL,
        events.c.type.label("event_type"),
        events.c.body,
        payments.c.created_by.label("owner"),
        payments.c.order_id,
        payments.c.status.label("payment_status"),
        webhook_endpoints.c.secret.label("encrypted_secret"),
        webhook_endpoints.c.created_by.label("endpoint_owner"),
        webhook_endpoints.c.enabled,
        webhook_endpoints.c.deleted_at,
    )
    .join(events, events.c.id == deliveries.c.event_id)
    .join(payments, payments.c.id == deliveries.c.payment_id)
    .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
    .where(id_in(deliveries.c.id, "ids"))
)


async def _with_receivers(connection: AsyncConnection, ids: Sequence[UUID]) -> Sequence[RowMapping]:
    return (await connection.execute(_WITH_RECEIVERS, {"ids": ids})).mappings().all() if ids else []


def _why_unwanted(row: RowMapping) -> str | None:
    if row["kind"] != DeliveryKind.ENDPOINT:
        return None
    if row["deleted_at"] is not None:
        return "the endpoint was deleted"
    return None if row["enabled"] else "the endpoint is disabled"


def _ending(now: datetime, reason: str) -> Update:
    return update(deliveries).values(
        status=DeliveryStatus.CANCELLED, due_at=None, last_error=sanitize_error(reason), updated_at=now
    )
