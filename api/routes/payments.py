"""Payments: their list, their status, history and deliveries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.approval.links import payment_json
from api.auth.dependencies import Authenticated
from api.auth.principal import Role
from api.openapi import examples
from api.openapi.responses import problems, success
from api.paths import PAYMENTS
from api.problems import Code
from api.responses import json_response
from api.routes.conditional import conditional_response
from api.routes.cursors import LIMIT_MAX, Cursor, Limit, open_page
from api.routes.delivery_rights import may_see_url
from api.routes.parameters import ApiState, IfNoneMatch, NamedUser, Prefer, parse_prefer_wait
from api.routes.strict_route import StrictRoute
from api.routes.waits import read_payment
from api.schemas import payments as schemas
from api.schemas.fields import Moment
from api.schemas.webhooks import PaymentDeliveries
from shared.database.clock import rfc3339
from shared.ids import ORDER_ID
from shared.lifecycle import PaymentStatus
from shared.payments.find import Filters, find_newest
from shared.payments.history import history_of
from shared.payments.payment import Payment
from shared.webhooks.delivery_log import Delivery, deliveries_of_payment

router = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["payments"])


@router.get(
    "",
    response_model=schemas.PaymentList,
    responses=problems(Code.FORBIDDEN) | success(200, "A page of payments.", example=examples.PAYMENTS),
)
async def list_payments(
    principal: Authenticated,
    api: ApiState,
    status: PaymentStatus | None = None,
    order_id: Annotated[str | None, Query(description="Payments for this order.", pattern=ORDER_ID)] = None,
    user_id: NamedUser = None,
    created_after: Annotated[Moment | None, Query(description="Payments created at this moment or later.")] = None,
    created_before: Annotated[Moment | None, Query(description="Payments created before this moment.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """List payments, the newest first. Users see their own, services and admins all.

    With `SERVICE_SCOPE=created` services see those that they created.
    """
    api.permissions.require_named_user(principal, user_id)
    given = {
        "status": status,
        "order_id": order_id,
        "user_id": user_id,
        "created_after": created_after and created_after.isoformat(),
        "created_before": created_before and created_before.isoformat(),
    }
    filters = {name: value for name, value in given.items() if value is not None}
    page = open_page(api.runtime.keyring, cursor, filters, limit=limit, owner=principal.actor)
    async with api.runtime.database.read() as connection:
        visible = api.permissions.visible(principal)
        found = await find_newest(connection, visible, _filters(page.filters), limit=page.fetch_limit, before=page.last)
    return json_response(page.to_json("payments", found, Payment.to_json))


@router.get(
    "/{payment_id}",
    response_model=schemas.Payment,
    responses=problems(Code.NOT_FOUND)
    | success(200, "The payment.", example=examples.COMPLETED)
    | success(304, "The ETag in `If-None-Match` is still current."),
)
async def get_payment(
    request: Request,
    payment_id: str,
    principal: Authenticated,
    api: ApiState,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return a payment.

    With `Prefer: wait=N` the answer is held until the payment has ended, or is REQUIRES_ACTION or AUTHORIZED, for at
    most N seconds. With `If-None-Match` as well it is held until there is such a state with another ETag.
    """
    wait = parse_prefer_wait(prefer, request, if_none_match=if_none_match)
    payment = await read_payment(api, principal, payment_id, wait)
    return conditional_response(payment, payment_json(request, principal, payment), if_none_match, wait=wait)


@router.get(
    "/{payment_id}/status",
    response_model=schemas.PaymentStatusAnswer,
    responses=problems(Code.NOT_FOUND)
    | success(200, "The status.", example=examples.STATUS)
    | success(304, "The ETag in `If-None-Match` is still current."),
)
async def get_payment_status(
    request: Request,
    payment_id: str,
    principal: Authenticated,
    api: ApiState,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return only the status of a payment: a small answer for clients that poll."""
    wait = parse_prefer_wait(prefer, request, if_none_match=if_none_match)
    payment = await read_payment(api, principal, payment_id, wait)
    content = {
        "payment_id": str(payment.id),
        "status": payment.status.value,
        "updated_at": rfc3339(payment.updated_at),
    }
    return conditional_response(payment, content, if_none_match, wait=wait)


@router.get(
    "/{payment_id}/history",
    response_model=schemas.PaymentHistory,
    responses=problems(Code.NOT_FOUND) | success(200, "The history.", example=examples.HISTORY),
)
async def get_payment_history(payment_id: str, principal: Authenticated, api: ApiState) -> Response:
    """List every change of a payment's status and every claim by a worker, the oldest first."""
    payment = await read_payment(api, principal, payment_id)
    async with api.runtime.database.read() as connection:
        history = await history_of(connection, payment.id, names_workers=principal.role is Role.ADMIN)
    return json_response({"payment_id": str(payment.id), "history": history})


@router.get(
    "/{payment_id}/deliveries",
    response_model=PaymentDeliveries,
    responses=problems(Code.NOT_FOUND) | success(200, "A page of deliveries.", example=examples.PAYMENT_DELIVERIES),
)
async def get_payment_deliveries(
    payment_id: str, principal: Authenticated, api: ApiState, limit: Limit = LIMIT_MAX, cursor: Cursor = None
) -> Response:
    """List the deliveries of a payment's events, the oldest first, each with its attempts but without the answers.

    A page with many attempts ends before `limit`.
    """
    payment = await read_payment(api, principal, payment_id)
    page = open_page(api.runtime.keyring, cursor, {}, limit=limit, owner=f"{principal.actor} {payment.id}")
    async with api.runtime.database.read() as connection:
        found = await deliveries_of_payment(connection, payment.id, limit=page.limit, after_id=page.last)

    def to_json(delivery: Delivery) -> dict[str, Any]:
        return delivery.to_json(with_url=may_see_url(principal, delivery))

    shown = page.to_json("deliveries", found.deliveries, to_json, has_more=found.has_more)
    return json_response({"payment_id": str(payment.id), **shown})


def _filters(wanted: Mapping[str, Any]) -> Filters:
    moments = {
        name: datetime.fromisoformat(wanted[name]) for name in ("created_after", "created_before") if name in wanted
    }
    return Filters(**{**wanted, **moments})
