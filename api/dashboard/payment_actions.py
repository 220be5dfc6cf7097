"""What visitors do with a payment: cancel, capture, refund, answer for its customer.

The JSON API decides whether they may.
"""

from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import minor_units, wrong
from api.dashboard.json_api import Refused
from api.dashboard.payment_page import payment_page
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD

router = APIRouter(prefix=f"{DASHBOARD}/payments/{{payment_id}}", route_class=PageRoute, include_in_schema=False)


@router.post("/cancel")
async def cancel(payment_id: str, visitor: SignedIn) -> Response:
    """Cancel the payment."""
    await visitor.form()
    return await _done(visitor, payment_id, "cancel", visitor.json.post(f"/payments/{payment_id}/cancel"))


@router.post("/capture")
async def capture(payment_id: str, visitor: SignedIn) -> Response:
    """Capture the payment, or a part of it."""
    form = await visitor.form()
    asking = _with_amount(visitor, payment_id, f"/payments/{payment_id}/capture", form)
    return await _done(visitor, payment_id, "capture", asking, form.get("key", ""))


@router.post("/refund")
async def refund(payment_id: str, visitor: SignedIn) -> Response:
    """Refund the payment, or a part of it."""
    form = await visitor.form()
    asking = _with_amount(visitor, payment_id, f"/payments/{payment_id}/refunds", form)
    return await _done(visitor, payment_id, "refund", asking, form.get("key", ""))


@router.post("/refunds/{refund_id}/cancel")
async def cancel_refund(payment_id: str, refund_id: str, visitor: SignedIn) -> Response:
    """Cancel a refund that no worker has claimed."""
    await visitor.form()
    return await _done(visitor, payment_id, "cancel-refund", visitor.json.post(f"/refunds/{refund_id}/cancel"))


@router.post("/answer")
async def answer(payment_id: str, visitor: SignedIn) -> Response:
    """Approve or decline the payment in the customer's place."""
    form = await visitor.form()
    word = form.get("result", "")
    asking = visitor.json.post(f"/payments/{payment_id}/action", {"result": word})
    return await _done(visitor, payment_id, word, asking)


async def _with_amount(visitor: Visitor, payment_id: str, path: str, form: dict[str, str]) -> dict[str, Any]:
    if "amount" not in form:
        # Only who has left it empty has asked for all of it.
        raise wrong('"amount" is required. An empty one means all of it.')
    text = form["amount"].strip()
    body: dict[str, Any] = {}
    if text:
        payment = await visitor.json.get(f"/payments/{payment_id}")
        body["amount"] = minor_units(text, payment["currency"])
    return await visitor.json.post(path, body, key=form.get("key"))


async def _done(
    visitor: Visitor, payment_id: str, word: str, asking: Awaitable[dict[str, Any]], sent_key: str = ""
) -> Response:
    """Lead to the payment after what was asked for; show it with the reason if that was refused."""
    try:
        await asking
    except Refused as refused:
        return await payment_page(visitor, payment_id, refused=refused, sent_key=sent_key)
    return visitor.lead_to(f"/payments/{payment_id}", done=word)
