"""What visitors do with a payment: cancel, capture, refund, answer for its customer.

The JSON API decides whether they may.
"""

from collections.abc import Awaitable
from decimal import Decimal, InvalidOperation
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.json_api import Answer, Refused
from api.dashboard.payment_page import payment_page
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from api.problems import Code
from shared.money import exponent

router = APIRouter(prefix=f"{DASHBOARD}/payments/{{payment_id}}", route_class=PageRoute, include_in_schema=False)

WRONG_AMOUNT = "The amount must be a number such as 15.85, with no more decimals than the currency has."
MINOR_UNITS_MAX = 10**18


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
    return await _done(visitor, payment_id, "capture", asking)


@router.post("/refund")
async def refund(payment_id: str, visitor: SignedIn) -> Response:
    """Refund the payment, or a part of it."""
    form = await visitor.form()
    asking = _with_amount(visitor, payment_id, f"/payments/{payment_id}/refunds", form)
    return await _done(visitor, payment_id, "refund", asking)


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
    text = form.get("amount", "").strip()
    body: dict[str, Any] = {}
    if text:
        payment = await visitor.json.get(f"/payments/{payment_id}")
        body["amount"] = minor_units(text, payment["currency"])
    return await visitor.json.post(path, body, key=form.get("key"))


async def _done(visitor: Visitor, payment_id: str, word: str, asking: Awaitable[dict[str, Any]]) -> Response:
    """Lead to the payment after what was asked for; show it with the reason if that was refused."""
    try:
        await asking
    except Refused as refused:
        return await payment_page(visitor, payment_id, fault=refused.sentence, status=refused.answer.status)
    return visitor.lead_to(f"/payments/{payment_id}?done={word}")


def minor_units(text: str, currency: str) -> int:
    """Return an amount in major units, such as `15.85`, in minor units. Raises Refused (422) if it is none."""
    wrong = Refused(Answer(422, {"code": Code.VALIDATION_ERROR, "detail": WRONG_AMOUNT}))
    try:
        amount = Decimal(text).scaleb(exponent(currency))
    except (InvalidOperation, ArithmeticError, KeyError) as error:
        raise wrong from error
    if not amount.is_finite() or amount != amount.to_integral_value() or not 0 < amount < MINOR_UNITS_MAX:
        raise wrong
    return int(amount)
