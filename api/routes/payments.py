"""Payments: accept an intent, look at it, wait for it, cancel it."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api import schemas
from api.auth import Authenticated, Principal, Role
from api.errors import Code, Problem, invalid
from api.openapi import also, problems
from api.repeats import REPEATED, once
from api.requests import (
    ApiState,
    IdempotencyKey,
    Prefer,
    Wait,
    check_receiver,
    claim_of,
    existing_id,
    location,
    open_cursor,
    seal_cursor,
    wished_wait,
)
from api.responses import document
from api.state import Api
from shared.clock import rfc3339
from shared.delivery_log import Delivery, deliveries_of_payment
from shared.documents import Payment
from shared.ids import new_id, parse_id
from shared.lifecycle import PaymentStatus
from shared.payments.accept import Intent
from shared.payments.cancel import Cancelled, cancel
from shared.payments.find import Filters, find, newest
from shared.payments.history import history_of
from shared.queue import Queue

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/payments", tags=["payments"])

ORDER_NUMBER = re.compile(r"[1-9][0-9]{0,18}")

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The ETag you have: 304 if it is still right.")
]


@router.post(
    "",
    status_code=202,
    response_model=schemas.Payment,
    responses=problems(400, 403, 409, 413, 415, 422, 503) | also(201, schemas.Payment, "It ended while you waited."),
)
async def create_payment(
    request: Request,
    body: schemas.PaymentRequest,
    principal: Authenticated,
    api: ApiState,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Accept a payment intent: it is written down and will be processed, whatever happens to this service."""
    wait = wished_wait(prefer)
    intent = _intent(body, principal, api, key)
    if wait is None:
        accepted = await api.intents.submit(intent)
        return _accepted(request, accepted.payment, is_replay=accepted.is_replay)
    async with api.waiting.seat(intent.id) as seat:
        accepted = await api.intents.submit(intent)
        api.admission.leave(request.scope)
        if accepted.is_replay:
            payment = await _wait_for(api, accepted.payment, wait)
        else:
            payment = await _ended(seat, wait) or accepted.payment
    return _accepted(request, payment, is_replay=accepted.is_replay, wait=wait)


@router.get("", response_model=schemas.PaymentList, responses=problems(403, 422, 503))
async def list_payments(
    principal: Authenticated,
    api: ApiState,
    status: PaymentStatus | None = None,
    order_id: Annotated[str | None, Query(pattern=schemas.ORDER_ID)] = None,
    user_id: Annotated[str | None, Query(description="Admins only.", pattern=schemas.USER_ID)] = None,
    created_after: Annotated[schemas.Moment | None, Query(description="Inclusive.")] = None,
    created_before: Annotated[schemas.Moment | None, Query(description="Exclusive.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before; it brings its filters along.", max_length=2000)
    ] = None,
) -> Response:
    """Payments, newest first: your own, those your service created, or as an admin all."""
    if user_id is not None and principal.role != Role.ADMIN:
        raise Problem(Code.FORBIDDEN, "Only admins may list the payments of a user.")
    given = {
        "status": status,
        "order_id": order_id,
        "user_id": user_id,
        "created_after": _moment("created_after", created_after),
        "created_before": _moment("created_before", created_before),
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    before: UUID | None = None
    if cursor is not None:
        before, kept = open_cursor(api.runtime.vault, cursor, owner=principal.actor)
        if wanted and wanted != kept:
            raise invalid("/query/cursor", "belongs to a list with other filters")
        wanted = kept
    async with api.runtime.database.read() as connection:
        found = await newest(connection, principal.visible, _filters(wanted), limit=limit + 1, before=before)
    page, more = found[:limit], len(found) > limit
    return document(
        {
            "payments": [payment.document() for payment in page],
            "limit": limit,
            "next_cursor": seal_cursor(api.runtime.vault, page[-1].id, wanted, owner=principal.actor) if more else None,
        }
    )


@router.get(
    "/{payment_id}",
    response_model=schemas.Payment,
    responses=problems(404, 503) | also(304, None, "Not modified."),
)
async def get_payment(
    payment_id: str, principal: Authenticated, api: ApiState, prefer: Prefer = None, if_none_match: IfNoneMatch = None
) -> Response:
    """The payment as it is now, or with `Prefer: wait` as it is once it has ended."""
    wait = wished_wait(prefer)
    payment = await _found(api, principal, payment_id, wait)
    return _fresh(payment, payment.document(), if_none_match, wait=wait)


@router.get(
    "/{payment_id}/status",
    response_model=schemas.PaymentStatusAnswer,
    responses=problems(404, 503) | also(304, None, "Not modified."),
)
async def get_payment_status(
    payment_id: str, principal: Authenticated, api: ApiState, prefer: Prefer = None, if_none_match: IfNoneMatch = None
) -> Response:
    """Where the payment stands: the small answer for those who poll."""
    wait = wished_wait(prefer)
    payment = await _found(api, principal, payment_id, wait)
    content = {
        "payment_id": str(payment.id),
        "status": payment.status.value,
        "updated_at": rfc3339(payment.updated_at),
    }
    return _fresh(payment, content, if_none_match, wait=wait)


@router.get("/{payment_id}/history", response_model=schemas.PaymentHistory, responses=problems(404, 503))
async def get_payment_history(payment_id: str, principal: Authenticated, api: ApiState) -> Response:
    """Every move of the payment, the oldest first."""
    payment = await _found(api, principal, payment_id, None)
    async with api.runtime.database.read() as connection:
        history = await history_of(connection, payment.id)
    return document({"payment_id": str(payment.id), "history": history})


@router.get("/{payment_id}/deliveries", response_model=schemas.PaymentDeliveries, responses=problems(404, 503))
async def get_payment_deliveries(payment_id: str, principal: Authenticated, api: ApiState) -> Response:
    """Every delivery of the payment's events, with its attempts."""
    payment = await _found(api, principal, payment_id, None)
    async with api.runtime.database.read() as connection:
        found = await deliveries_of_payment(connection, payment.id, with_bodies=principal.role == Role.ADMIN)
    shown = [delivery.document(with_url=_may_see_url(principal, payment, delivery)) for delivery in found]
    return document({"payment_id": str(payment.id), "deliveries": shown})


@router.post("/{payment_id}/cancel", response_model=schemas.Payment, responses=problems(404, 409, 422, 503))
async def cancel_payment(
    payment_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Cancel a payment that no worker has taken up yet."""
    payment = await _found(api, principal, payment_id, None)
    claim = claim_of(
        api.runtime.vault,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/cancel",
        content={},
        object_id=payment.id,
    )

    async def work(connection: AsyncConnection, now: datetime, _repeated: UUID | None) -> Cancelled:
        cancelled = await cancel(connection, payment.id, by=principal.actor, now=now)
        if cancelled is None or cancelled.payment.status != PaymentStatus.CANCELLED:
            raise Problem(Code.PAYMENT_NOT_CANCELLABLE)
        return cancelled

    cancelled, is_replay = await once(api.runtime.database, claim, work)
    if cancelled.is_new:
        log.info("payment.cancelled", payment_id=str(payment.id))
        api.publisher.publish(Queue.DELIVER, cancelled.deliveries)
        api.publisher.wake([payment.id])
    headers = {"ETag": _etag(cancelled.payment)} | (REPEATED if is_replay else {})
    return document(cancelled.payment.document(), headers=headers)


def _may_see_url(principal: Principal, payment: Payment, delivery: Delivery) -> bool:
    """A receiver's address is for admins, the endpoint's creator, and whoever gave the callback URL."""
    return principal.role == Role.ADMIN or principal.actor == (delivery.endpoint_created_by or payment.created_by)


def _intent(body: schemas.PaymentRequest, principal: Principal, api: Api, key: str | None) -> Intent:
    settings = api.runtime.settings
    if body.user_id is not None and principal.role == Role.USER:
        raise Problem(Code.FORBIDDEN, "Only services and admins pay for another user.")
    if not settings.min_payment_amount <= body.amount <= settings.max_payment_amount:
        raise invalid(
            "/amount", f"must be between {settings.min_payment_amount} and {settings.max_payment_amount} minor units"
        )
    if settings.order_service_url and not _is_order_number(body.order_id):
        raise invalid("/order_id", "must be a positive integer: the order service numbers its orders")
    if body.callback_url is not None:
        check_receiver(api, "/callback_url", body.callback_url)
    intent_id = new_id()
    return Intent(
        id=intent_id,
        user_id=body.user_id or principal.user_id,
        created_by=principal.actor,
        order_id=body.order_id,
        payment_method_id=parse_id(body.payment_method_id) or UUID(int=0),  # what is no id is no method either
        amount=body.amount,
        currency=body.currency,
        description=body.description,
        metadata=body.metadata,
        callback_url=body.callback_url,
        correlation_id=structlog.contextvars.get_contextvars().get("correlation_id"),
        idempotency=claim_of(
            api.runtime.vault,
            principal,
            key,
            operation="POST /payments",
            content=body.model_dump() if key else None,
            object_id=intent_id,
        ),
    )


def _is_order_number(order_id: str) -> bool:
    """In its one decimal form: 7 and 007 would be two orders to us and one to the order service."""
    return ORDER_NUMBER.fullmatch(order_id) is not None and int(order_id) < 2**63


async def _found(api: Api, principal: Principal, text: str, wait: Wait | None) -> Payment:
    payment_id = existing_id(text)
    if wait is None:
        return await _read(api, principal, payment_id)
    async with api.waiting.seat(payment_id) as seat:
        payment = await _read(api, principal, payment_id)
        if payment.status.is_terminal:
            return payment
        return await _ended(seat, wait) or await _read(api, principal, payment_id)


async def _read(api: Api, principal: Principal, payment_id: UUID) -> Payment:
    async with api.runtime.database.read() as connection:
        payment = await find(connection, payment_id, principal.visible)
    if payment is None:
        raise Problem(Code.NOT_FOUND)
    return payment


async def _wait_for(api: Api, payment: Payment, wait: Wait) -> Payment:
    """A replay's payment has another id than the request had, so its wait begins here."""
    if payment.status.is_terminal:
        return payment
    async with api.waiting.seat(payment.id) as seat:
        async with api.runtime.database.read() as connection:
            now = await find(connection, payment.id, Principal("", Role.ADMIN).visible) or payment
        return now if now.status.is_terminal else await _ended(seat, wait) or now


async def _ended(seat: Any, wait: Wait) -> Payment | None:
    """The payment, if it ends within the wait and there is a seat to wait in."""
    if seat is None:
        return None
    try:
        async with asyncio.timeout(wait.seconds):
            ended: Payment | None = await seat
    except TimeoutError:
        return None
    return ended


def _accepted(request: Request, payment: Payment, *, is_replay: bool, wait: Wait | None = None) -> Response:
    headers = {"Location": location(request, payment.id), "Retry-After": "1", "ETag": _etag(payment)}
    if is_replay:
        headers |= REPEATED
    if wait is not None:
        headers |= wait.headers(payment)
    is_created = wait is not None and payment.status.is_terminal and not is_replay
    if payment.status.is_terminal:
        del headers["Retry-After"]
    return document(payment.document(), status=201 if is_created else 202, headers=headers)


def _etag(payment: Payment) -> str:
    return f'"{payment.sequence}"'


def _fresh(payment: Payment, content: Mapping[str, Any], if_none_match: str | None, *, wait: Wait | None) -> Response:
    headers = {"ETag": _etag(payment), "Cache-Control": "private, no-cache"}
    if wait is not None:
        headers |= wait.headers(payment)
    if not payment.status.is_terminal:
        headers["Retry-After"] = "1"
    if if_none_match is not None and _matches(if_none_match, _etag(payment)):
        return Response(status_code=304, headers=headers)
    return document(content, headers=headers)


def _matches(if_none_match: str, etag: str) -> bool:
    given = {candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")}
    return bool(given & {etag, "*"})


def _moment(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise invalid(f"/query/{name}", "needs a time zone, such as Z")
    try:
        return value.astimezone(UTC).isoformat()
    except OverflowError:
        raise invalid(f"/query/{name}", "is too far away") from None


def _filters(wanted: Mapping[str, Any]) -> Filters:
    moments = {
        name: datetime.fromisoformat(wanted[name]) for name in ("created_after", "created_before") if name in wanted
    }
    return Filters(**{**wanted, **moments})
