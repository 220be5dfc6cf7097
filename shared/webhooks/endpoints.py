"""Webhook endpoints: receivers that services and admins register for the events of all payments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.tables import deliveries, webhook_endpoints
from shared.webhooks.deliveries import cancel_open

DISABLED_BY_OWNER = "disabled by its owner"
DELETED = "endpoint deleted"
SECRET_UNREADABLE = "the endpoint's secret cannot be decrypted: DATA_KEY has changed"  # noqa: S105 - an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A row of `webhook_endpoints`, every column under its own name."""

    id: UUID
    created_by: str
    name: str
    url: str
    event_types: list[str]
    enabled: bool
    disabled_reason: str | None
    secret: str  # encrypted
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the endpoint of a row of the table."""
        return cls(**row)

    def to_json(self, *, has_readable_secret: bool) -> dict[str, Any]:
        """Return the endpoint as its creator sees it, without the secret."""
        return {
            "id": str(self.id),
            "name": self.name,
            "url": self.url,
            "event_types": self.event_types,
            "enabled": self.enabled,
            "disabled_reason": self.disabled_reason,
            "problem": None if has_readable_secret else SECRET_UNREADABLE,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
        }


async def add_endpoint(
    connection: AsyncConnection,
    *,
    endpoint_id: UUID,
    created_by: str,
    name: str,
    url: str,
    event_types: Sequence[str],
    encrypted_secret: str,
    now: datetime,
) -> Endpoint:
    """Add an endpoint. Events that happen from now on are delivered to it."""
    row = {
        "id": endpoint_id,
        "created_by": created_by,
        "name": name,
        "url": url,
        "event_types": sorted(set(event_types)),
        "enabled": True,
        "disabled_reason": None,
        "secret": encrypted_secret,
        "created_at": now,
        "updated_at": now,
        "deleted_at": None,
    }
    await connection.execute(insert(webhook_endpoints), row)
    return Endpoint.of(row)


async def find_endpoint(connection: AsyncConnection, endpoint_id: UUID, *, created_by: str | None) -> Endpoint | None:
    """Return the endpoint if `created_by` has created it, or of any creator if that is None. None if there is none."""
    found = await connection.execute(
        select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id, *_visible(created_by))
    )
    row = found.mappings().one_or_none()
    return Endpoint.of(row) if row else None


async def endpoints_of(connection: AsyncConnection, *, created_by: str | None) -> list[Endpoint]:
    """Return the endpoints that `created_by` has created, or all if that is None, the newest first."""
    found = await connection.execute(
        select(webhook_endpoints).where(*_visible(created_by)).order_by(webhook_endpoints.c.id.desc())
    )
    return [Endpoint.of(row) for row in found.mappings()]


async def change_endpoint(
    connection: AsyncConnection, endpoint: Endpoint, changes: Mapping[str, Any], *, now: datetime
) -> Endpoint | None:
    """Change the name, the URL, the event types or `enabled`. Return the endpoint, or None if it was deleted.

    Changes that are None, or what the endpoint has already, change nothing, and `updated_at` stays. Open deliveries of
    an endpoint that is disabled end as cancelled.
    """
    values = {name: value for name, value in changes.items() if value is not None}
    if "event_types" in values:
        values["event_types"] = sorted(set(values["event_types"]))
    values = {name: value for name, value in values.items() if value != getattr(endpoint, name)}
    if not values:
        return endpoint
    if values.get("enabled") is True:
        values["disabled_reason"] = None
    is_disabled_now = values.get("enabled") is False
    if is_disabled_now:
        values["disabled_reason"] = DISABLED_BY_OWNER
    changed = await _update(connection, endpoint.id, {**values, "updated_at": now})
    if is_disabled_now:
        await cancel_open(connection, now, DISABLED_BY_OWNER, deliveries.c.endpoint_id == endpoint.id)
    return changed


async def delete_endpoint(connection: AsyncConnection, endpoint: Endpoint, *, now: datetime) -> bool:
    """Delete the endpoint and end its open deliveries as cancelled. Return False if it was already deleted.

    The row stays, because deliveries refer to it.
    """
    gone = await connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint.id, webhook_endpoints.c.deleted_at.is_(None))
        .values(enabled=False, deleted_at=now, updated_at=now)
    )
    await cancel_open(connection, now, DELETED, deliveries.c.endpoint_id == endpoint.id)
    return gone.rowcount > 0


def _visible(created_by: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [webhook_endpoints.c.deleted_at.is_(None)]
    if created_by is not None:
        conditions.append(webhook_endpoints.c.created_by == created_by)
    return conditions


async def _update(connection: AsyncConnection, endpoint_id: UUID, values: Mapping[str, Any]) -> Endpoint | None:
    changed = await connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.deleted_at.is_(None))
        .values(values)
        .returning(*webhook_endpoints.c)
    )
    row = changed.mappings().one_or_none()
    return Endpoint.of(row) if row else None
