"""One payment: its life to scale, its history, ledger, events, deliveries and refunds, and what can be done with it."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.principal import Role
from api.dashboard.forms import next_key
from api.dashboard.json_api import Refused
from api.dashboard.links import endpoints_linked
from api.dashboard.timeline import timeline
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.lifecycle import CANCELLED_AT_ONCE, REFUNDABLE, PaymentStatus
from shared.payments.event_log import events_of_payment
from shared.simulation.ledger_log import ledger_of_payment

router = APIRouter(prefix=f"{DASHBOARD}/payments", route_class=PageRoute, include_in_schema=False)

SHOWN_MAX = 100
OPEN_DELIVERY = {"pending", "sending"}
OPEN_REFUND = {"PENDING", "PROCESSING"}
IN_PROGRESS = {PaymentStatus.PENDING, PaymentStatus.PROCESSING}
# What the page says after an action that led to it.
DONE = {
    "cancel": "The payment is cancelled, or about to be.",
    "capture": "The capture was requested.",
    "refund": "The refund was accepted.",
    "approve": "You approved the payment in the customer's place.",
    "decline": "You declined the payment in the customer's place.",
    "resend": "The delivery is sent again.",
    "cancel-refund": "The refund is cancelled.",
    "made": "The payment was accepted.",
}


@router.get("/{payment_id}")
async def get_payment(payment_id: str, visitor: SignedIn, view: str = "") -> Response:
    """Show a payment and all that belongs to it."""
    return await payment_page(visitor, payment_id, view=view)


async def payment_page(
    visitor: Visitor, payment_id: str, *, view: str = "", refused: Refused | None = None, sent_key: str = ""
) -> Response:
    """Return the page of a payment, with what was done, or with the reason why it was not. Raises Refused (404)."""
    payment = await visitor.json.get(f"/payments/{payment_id}")
    path = f"/payments/{payment['id']}"
    history = (await visitor.json.get(f"{path}/history"))["history"]
    deliveries = await visitor.json.get(f"{path}/deliveries", {"limit": SHOWN_MAX})
    refunds = await visitor.json.get(f"{path}/refunds", {"limit": SHOWN_MAX})
    is_whole = {"whole": True, "first": False}.get(view)
    records = await _records(visitor, UUID(payment["id"]))
    shown = {
        "payment": payment,
        "history": history,
        "deliveries": deliveries["deliveries"],
        "endpoints_linked": await endpoints_linked(visitor),
        "has_more_deliveries": deliveries["next_cursor"] is not None,
        "refunds": refunds["refunds"],
        "actions": _actions(visitor, payment),
        "timeline": timeline(
            payment, history, deliveries["deliveries"], refunds["refunds"], now=records.pop("now"), is_whole=is_whole
        ),
        "explanation": await _explanation(visitor, path),
        "key": next_key(refused, sent_key),
        "done": DONE.get(visitor.done),
        # After a refusal the address is that of the form, which cannot be asked for again.
        "is_live": refused is None and _is_open(payment, deliveries["deliveries"], refunds["refunds"]),
        **records,
    }
    return visitor.page("payment.html", shown, refused=refused)


async def _explanation(visitor: Visitor, path: str) -> list[dict[str, Any]]:
    """Return why the payment is what it is: headings, sentences and commands; none where the JSON API says nothing."""
    found = await visitor.json.find(f"{path}/explain") or {}
    sections: list[dict[str, Any]] = found.get("words", [])
    return sections


async def _records(visitor: Visitor, payment_id: UUID) -> dict[str, Any]:
    """Return the service's time, the events of a payment and, for admins, the gateway's ledger of it."""
    database = visitor.api.runtime.database
    async with database.read() as connection:
        now = await database.clock.now(connection)
        events = await events_of_payment(connection, payment_id, limit=SHOWN_MAX)
        ledger = await ledger_of_payment(connection, payment_id, limit=SHOWN_MAX) if visitor.is_admin else None
    return {"now": now, "events": events, "ledger": ledger}


def _actions(visitor: Visitor, payment: dict[str, Any]) -> set[str]:
    """Return what the page offers. What may really be done is decided when it is asked for."""
    status = PaymentStatus(payment["status"])
    is_merchant = visitor.principal.role != Role.USER
    offered = {
        "cancel": status in {*CANCELLED_AT_ONCE, PaymentStatus.AUTHORIZED},
        "capture": status is PaymentStatus.AUTHORIZED and is_merchant,
        "refund": status in REFUNDABLE and is_merchant and payment["amount_refundable"] > 0,
        "answer": status is PaymentStatus.REQUIRES_ACTION and visitor.api.runtime.settings.is_simulation_on,
        "merchant": is_merchant,
    }
    return {action for action, is_offered in offered.items() if is_offered}


def _is_open(payment: dict[str, Any], deliveries: list[dict[str, Any]], refunds: list[dict[str, Any]]) -> bool:
    """Return whether something may happen without anybody's action here."""
    return (
        payment["status"] in {*IN_PROGRESS, PaymentStatus.REQUIRES_ACTION, PaymentStatus.AUTHORIZED}
        or any(delivery["status"] in OPEN_DELIVERY for delivery in deliveries)
        or any(refund["status"] in OPEN_REFUND for refund in refunds)
    )
