"""Resending a delivery, however it has ended."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.tables import columns_of, deliveries, webhook_endpoints
from shared.errors import DeliveryInProgress, EndpointDisabled
from shared.lifecycle import DeliveryStatus


async def resend(connection: AsyncConnection, now: datetime, delivery_id: UUID) -> WorkItem | None:
    """Make the delivery due now with a fresh schedule. Return its work item, to be published after the commit.

    `delivered_at` stays until it is delivered again. None if there is no such delivery or its endpoint was deleted.
    Raises DeliveryInProgress while it is being sent, EndpointDisabled.
    """
    found = await connection.execute(
        select(*columns_of(deliveries)).where(deliveries.c.id == delivery_id).with_for_update()
    )
    row = found.mappings().one_or_none()
    if row is None or not await _is_wanted(connection, row["endpoint_id"]):
        return None
    if row["status"] == DeliveryStatus.SENDING and row["due_at"] > now:
        raise DeliveryInProgress("This delivery is being sent right now. Wait for the end of this attempt.")
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(status=DeliveryStatus.PENDING, retries=0, due_at=now, updated_at=now)
    )
    return WorkItem(delivery_id, row["lease_version"])


async def _is_wanted(connection: AsyncConnection, endpoint_id: UUID | None) -> bool:
    """Return whether the endpoint, if the delivery has one, still exists. Raises EndpointDisabled."""
    if endpoint_id is None:
        return True
    found = await connection.execute(
        select(webhook_endpoints.c.enabled, webhook_endpoints.c.deleted_at).where(webhook_endpoints.c.id == endpoint_id)
    )
    endpoint = found.one_or_none()
    if endpoint is None or endpoint.deleted_at is not None:
        return False
    if not endpoint.enabled:
        raise EndpointDisabled("The endpoint of this delivery is disabled. Enable it before you resend.")
    return True
