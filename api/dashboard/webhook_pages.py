"""Webhooks: endpoints with their health, one endpoint with its deliveries, one delivery with its attempts."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.json_api import Refused
from api.dashboard.links import endpoints_linked, payments_linked
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.delivery_lifecycle import DeliveryStatus
from shared.payments.event_log import find_event

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)

ROWS = 25
# The deliveries of an endpoint in its strip of health, and the endpoints that have one in the list.
STRIP, STRIPS_MAX = 40, 30
DONE = {
    "resend": "The delivery is sent again.",
    "enable": "The endpoint is enabled. Events from now on are delivered to it.",
    "disable": "The endpoint is disabled. Its open deliveries were cancelled.",
}


@router.get("/webhooks")
async def get_endpoints(visitor: SignedIn) -> Response:
    """Show the endpoints that the visitor may manage, each with what became of its latest deliveries."""
    endpoints = (await visitor.json.get("/webhook-endpoints"))["webhook_endpoints"]
    strips = {endpoint["id"]: await _strip(visitor, endpoint["id"]) for endpoint in endpoints[:STRIPS_MAX]}
    return visitor.page("webhooks.html", {"endpoints": endpoints, "strips": strips, "is_live": bool(endpoints)})


@router.get("/webhooks/{endpoint_id}")
async def get_endpoint(endpoint_id: str, visitor: SignedIn, status: str = "", cursor: str = "") -> Response:
    """Show an endpoint with its deliveries, the newest first."""
    return await _endpoint_page(visitor, endpoint_id, delivery_status=status, cursor=cursor)


@router.post("/webhooks/{endpoint_id}/enable")
async def enable(endpoint_id: str, visitor: SignedIn) -> Response:
    """Enable an endpoint."""
    return await _switch(visitor, endpoint_id, "enable")


@router.post("/webhooks/{endpoint_id}/disable")
async def disable(endpoint_id: str, visitor: SignedIn) -> Response:
    """Disable an endpoint."""
    return await _switch(visitor, endpoint_id, "disable")


@router.get("/deliveries/{delivery_id}")
async def get_delivery(delivery_id: str, visitor: SignedIn) -> Response:
    """Show a delivery with what was sent and what its receiver answered."""
    return await _delivery_page(visitor, delivery_id)


@router.post("/deliveries/{delivery_id}/resend")
async def resend(delivery_id: str, visitor: SignedIn) -> Response:
    """Send a delivery again."""
    await visitor.form()
    try:
        await visitor.json.post(f"/webhook-deliveries/{delivery_id}/resend")
    except Refused as refused:
        return await _delivery_page(visitor, delivery_id, refused=refused)
    return visitor.lead_to(f"/deliveries/{delivery_id}", done="resend")


async def _strip(visitor: Visitor, endpoint_id: str) -> list[dict[str, Any]]:
    """Return the latest deliveries of an endpoint, the oldest first."""
    found = await visitor.json.get(f"/webhook-endpoints/{endpoint_id}/deliveries", {"limit": STRIP})
    return list(reversed(found["deliveries"]))


async def _switch(visitor: Visitor, endpoint_id: str, word: str) -> Response:
    await visitor.form()
    try:
        await visitor.json.patch(f"/webhook-endpoints/{endpoint_id}", {"enabled": word == "enable"})
    except Refused as refused:
        return await _endpoint_page(visitor, endpoint_id, refused=refused)
    return visitor.lead_to(f"/webhooks/{endpoint_id}", done=word)


async def _endpoint_page(
    visitor: Visitor,
    endpoint_id: str,
    *,
    delivery_status: str = "",
    cursor: str = "",
    refused: Refused | None = None,
) -> Response:
    endpoint = await visitor.json.get(f"/webhook-endpoints/{endpoint_id}")
    filters = {"status": delivery_status} if delivery_status else {}
    query = {"limit": ROWS, **filters, **({"cursor": cursor} if cursor else {})}
    page: dict[str, Any] = {"deliveries": [], "next_cursor": None}
    try:
        page = await visitor.json.get(f"/webhook-endpoints/{endpoint_id}/deliveries", query)
    except Refused as error:
        refused = error
    next_cursor = page["next_cursor"]
    shown = {
        "endpoint": endpoint,
        "strip": await _strip(visitor, endpoint_id),
        "deliveries": page["deliveries"],
        "payments_linked": await payments_linked(visitor, page["deliveries"]),
        "status_filter": delivery_status,
        "statuses": list(DeliveryStatus),
        "first": f"?{urlencode(filters)}" if cursor else None,
        "next": f"?{urlencode({**filters, 'cursor': next_cursor})}" if next_cursor else None,
        "is_live": not cursor and not refused,
        "done": DONE.get(visitor.done),
    }
    return visitor.page("endpoint.html", shown, refused=refused)


async def _delivery_page(visitor: Visitor, delivery_id: str, *, refused: Refused | None = None) -> Response:
    delivery = await visitor.json.get(f"/webhook-deliveries/{delivery_id}")
    async with visitor.api.runtime.database.read() as connection:
        # Whoever sees the delivery sees its payment, or is its receiver.
        event = await find_event(connection, UUID(delivery["event_id"]))
    shown = {
        "delivery": delivery,
        "event": event,
        "endpoints_linked": await endpoints_linked(visitor),
        "payments_linked": await payments_linked(visitor, [delivery]),
        "is_live": refused is None and delivery["status"] in {DeliveryStatus.PENDING, DeliveryStatus.SENDING},
        "done": DONE.get(visitor.done),
    }
    return visitor.page("delivery.html", shown, refused=refused)
