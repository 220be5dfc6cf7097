"""What pages may link to: only what the visitor may see, as a link that leads to a 404 helps nobody."""

from collections.abc import Iterable, Mapping
from typing import Any

from api.dashboard.visitors import Visitor
from shared.payments.find import Visible


async def endpoints_linked(visitor: Visitor) -> set[str]:
    """Return the ids of the endpoints that have a page for the visitor: those that were deleted have none."""
    found = await visitor.json.find("/webhook-endpoints")
    return {endpoint["id"] for endpoint in found["webhook_endpoints"]} if found else set()


async def payments_linked(visitor: Visitor, deliveries: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the ids of the payments of the deliveries that the visitor may see.

    The creator of an endpoint sees every delivery to it, and with SERVICE_SCOPE=created not every payment.
    """
    ids = {delivery["payment_id"] for delivery in deliveries}
    if visitor.api.permissions.visible(visitor.principal) == Visible():
        return ids
    return {one for one in ids if await visitor.json.find(f"/payments/{one}") is not None}
