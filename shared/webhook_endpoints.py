"""The verbs of webhook endpoints: receivers that services and admins register for events of all payments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.clock import rfc3339
from shared.deliveries import cancel_open
from shared.models import webhook_endpoints

DISABLED_BY_HAND = "disabled by its owner"
DELETED = "endpoint deleted"


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
        """The endpoint that a row of the table holds."""
        return cls(**row)

    def document(self) -> dict[str, Any]:
        """The endpoint as its creator sees it; the secret is not part of it."""
        return {
            "id": str(self.id),
            "name": self.name,
            "url": self.url,
            "event_types": self.event_types,
            "enabled": self.enabled,
            "disabled_reason": self.disabled_reason,
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
    """Add an endpoint; events that happen from now on are delivered to it."""
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
    """The endpoint, if it is the creator's; anybody's for None."""
    found = await connection.execute(
        select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id, *_visible(created_by))
    )
    row = found.mappings().one_or_none()
    return Endpoint.of(row) if row else None


async def endpoints_of(connection: AsyncConnection, *, created_by: str | None) -> list[Endpoint]:
    """The creator's endpoints, or all for None, the newest first."""
    found = await connection.execute(
        select(webhook_endpoints).where(*_visible(created_by)).order_by(webhook_endpoints.c.id.desc())
    )
    return [Endpoint.of(row) for row in found.mappings()]


async def change_endpoint(
    connection: AsyncConnection, endpoint: Endpoint, changes: Mapping[str, Any], *, now: datetime
) -> Endpoint | None:
    """Change name, url, event types or `enabled`; disabling ends its open deliveries. None if it is gone."""
    values = {name: value for name, value in changes.items() if value is not None}
    if values.get("enabled") is True:
        values["disabled_reason"] = None
    is_disabled_now = endpoint.enabled and values.get("enabled") is False
    if is_disabled_now:
        values["disabled_reason"] = DISABLED_BY_HAND
    if "event_types" in values:
        values["event_types"] = sorted(set(values["event_types"]))
    changed = await _update(connection, endpoint.id, {**values, "updated_at": now})
    if is_disabled_now:
        await cancel_open(connection, now, endpoint.id, DISABLED_BY_HAND)
    return changed


async def delete_endpoint(connection: AsyncConnection, endpoint: Endpoint, *, now: datetime) -> bool:
    """Put the endpoint out of use and end its open deliveries. False if it is gone already."""
    gone = await connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint.id, webhook_endpoints.c.deleted_at.is_(None))
        .values(enabled=False, deleted_at=now, updated_at=now)
    )
    await cancel_open(connection, now, endpoint.id, DELETED)
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
