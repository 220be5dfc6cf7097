"""Resending a delivery, however it has ended."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.tables import columns_of, deliveries, webhook_endpoints
from shared.delivery_lifecycle import DeliveryStatus
from shared.errors import DeliveryInProgress, EndpointDeleted, EndpointDisabled
from shared.wording import refused_in_state


async def resend(
    connection: AsyncConnection, now: datetime, delivery_id: UUID, *, real_now: datetime | None = None
) -> WorkItem | None:
    """Make the delivery due now with a fresh schedule. Return its work item, to be published after the commit.

    `delivered_at` stays until it is delivered again. None if there is no such delivery. Raises DeliveryInProgress while
    it is being sent, EndpointDisabled and EndpointDeleted.
    """
    found = await connection.execute(
        select(*columns_of(deliveries)).where(deliveries.c.id == delivery_id).with_for_update()
    )
    row = found.mappings().one_or_none()
    if row is None:
        return None
    await _check_endpoint(connection, row["endpoint_id"])
    lease_counts_from = (real_now or now) if row["held_until"] == row["due_at"] else now
    if row["status"] == DeliveryStatus.SENDING and row["due_at"] > lease_counts_from:
        raise being_sent(row["updated_at"])
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id)
        .values(status=DeliveryStatus.PENDING, retries=0, due_at=now, held_until=None, updated_at=now)
    )
    return WorkItem(delivery_id, row["lease_version"])


def being_sent(since: datetime) -> DeliveryInProgress:
    """Return the refusal to resend a delivery that a worker has claimed at this moment."""
    return DeliveryInProgress(
        refused_in_state(
            "The delivery",
            "in the status sending",
            since,
            so="it cannot be sent again at the same time",
            remedy="Wait for the end of this attempt.",
        )
    )


async def _check_endpoint(connection: AsyncConnection, endpoint_id: UUID | None) -> None:
    """Check that the endpoint, if the delivery has one, takes deliveries. Raises EndpointDisabled, EndpointDeleted."""
    if endpoint_id is None:
        return
    found = await connection.execute(
        select(webhook_endpoints.c.enabled, webhook_endpoints.c.deleted_at).where(webhook_endpoints.c.id == endpoint_id)
    )
    endpoint = found.one_or_none()
    if endpoint is None or endpoint.deleted_at is not None:
        raise EndpointDeleted("This delivery cannot be sent again: the endpoint is gone. Register a new one.")
    if not endpoint.enabled:
        raise EndpointDisabled("The endpoint of this delivery is disabled. Enable it before you resend.")
