"""Finding things by what people have at hand: an id of any kind, an order, or the gateway's own id."""

import re
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.json_api import Refused
from api.dashboard.payment_list import find_payments
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from api.problems import Code
from shared.ids import parse_id
from shared.payments.event_log import find_event

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)

# The gateway's own id of a charge. No order of a shop is likely to look like it.
TRANSACTION = re.compile(r"(?:ch_|sq_|PAY-)[A-Za-z0-9]{16,30}")
# Where each kind of object is in the JSON API, and its page here.
KINDS = (
    ("/payments/{}", "/payments/{}"),
    ("/webhook-deliveries/{}", "/deliveries/{}"),
    ("/webhook-endpoints/{}", "/webhooks/{}"),
)


@router.get("/find")
async def find(visitor: SignedIn, q: str = "") -> Response:
    """Lead to the page of what the text names; show a page that says so if it names nothing."""
    text = q.strip()
    place = await _place(visitor, text) if text else None
    if place is not None:
        return visitor.lead_to(place)
    return visitor.page("not_found.html", {"text": text}, status=404)


async def _place(visitor: Visitor, text: str) -> str | None:
    if parse_id(text) is not None:
        return await _place_of_id(visitor, text)
    if TRANSACTION.fullmatch(text):
        return await _place_of_transaction(visitor, text)
    try:
        payments = (await visitor.json.get("/payments", {"order_id": text, "limit": 2}))["payments"]
    except Refused as refused:
        if refused.code != Code.VALIDATION_ERROR:
            raise
        # No order has such a name.
        return None
    if len(payments) == 1:
        return f"/payments/{payments[0]['id']}"
    return f"/payments?{urlencode({'order_id': text})}" if payments else None


async def _place_of_transaction(visitor: Visitor, text: str) -> str:
    """Return the page of the payment, if it is one of the latest; else a list that goes on looking for it."""
    wanted = {"transaction": text}
    payments = (await find_payments(visitor, wanted))["payments"]
    return f"/payments/{payments[0]['id']}" if payments else f"/payments?{urlencode(wanted)}"


async def _place_of_id(visitor: Visitor, text: str) -> str | None:
    for path, page in KINDS:
        if await visitor.json.find(path.format(text)) is not None:
            return page.format(text)
    if refund := await visitor.json.find(f"/refunds/{text}"):
        return f"/payments/{refund['payment_id']}#refunds"
    event_id = parse_id(text)
    if event_id is None:
        return None
    async with visitor.api.runtime.database.read() as connection:
        event = await find_event(connection, event_id)
    # The payment says whether the visitor may see its event.
    if event is not None and await visitor.json.find(f"/payments/{event.payment_id}") is not None:
        return f"/payments/{event.payment_id}#events"
    return None
