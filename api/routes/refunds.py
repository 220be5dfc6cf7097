"""Refunds: asked for and listed below their payment, found, followed and cancelled by their own id."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, assert_never
from uuid import UUID

import structlog
from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Authenticated
from api.auth.principal import Role
from api.openapi import money_examples
from api.openapi.responses import BODY, KEYED, NEVER_HELD, problems, success
from api.paths import PAYMENTS
from api.problems import Code, Problem, found_or_404, invalid
from api.responses import json_response
from api.routes.conditional import conditional_response, version_headers
from api.routes.cursors import LIMIT_MAX, Cursor, Limit, open_page
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, IfNoneMatch, Prefer, parse_prefer_wait, refund_location
from api.routes.steering import content_with_steering, steering_of
from api.routes.strict_route import StrictRoute
from api.routes.waits import REFUND, await_settled, read_payment, read_refund
from api.schemas import refunds as schemas
from api.state import Api
from shared.broker.client import Queue
from shared.errors import OlderWorkers
from shared.ids import new_id, parse_id
from shared.payments.find import Visible
from shared.payments.history import status_since
from shared.refund_lifecycle import RefundStatus
from shared.refunds.find import FoundRefund, RefundFilters, find_newest_refunds, find_refund
from shared.refunds.history import history_of
from shared.refunds.refusals import exceeds_balance, not_refundable, refund_not_cancellable
from shared.refunds.requests import (
    ExceedsBalance,
    NotRefundable,
    RefundMoved,
    RefundRequest,
    cancel_refund,
    request_refund,
)

log = structlog.get_logger(__name__)
of_payments = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["refunds"])
# Without a prefix of its own, because it is mounted at two different paths.
router = APIRouter(route_class=StrictRoute, tags=["refunds"])


@of_payments.post(
    "/{payment_id}/refunds",
    status_code=202,
    response_model=schemas.Refund,
    responses=problems(
        *BODY,
        *KEYED,
        Code.FORBIDDEN,
        Code.SIMULATION_DISABLED,
        Code.NOT_FOUND,
        Code.PAYMENT_NOT_REFUNDABLE,
        Code.REFUND_EXCEEDS_BALANCE,
    )
    | success(202, "The refund is accepted.", example=money_examples.REFUND_PENDING, headers=("Location", "ETag"))
    | success(
        201,
        "The refund ended while the answer was held (`Prefer: wait=N`).",
        model=schemas.Refund,
        example=money_examples.REFUND,
        headers=("Location", "ETag"),
        never=NEVER_HELD,
    ),
)
async def create_refund(
    request: Request,
    payment_id: str,
    principal: Authenticated,
    api: ApiState,
    body: Annotated[schemas.RefundRequest, Body(default_factory=schemas.RefundRequest)],
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Refund a payment, or a part of it.

    Without `amount`, or without a body, all that is still refundable is refunded. The amount is reserved at once and
    paid back by a worker; of refunds at the same time, together no more than was captured is accepted. For services
    and admins.
    """
    wait = parse_prefer_wait(prefer, request)
    payment = await read_payment(api, principal, payment_id)
    api.permissions.require_merchant(principal)
    steering = steering_of(body.simulation, api)
    wanted = RefundRequest(
        id=new_id(),
        amount=body.amount,
        reason=body.reason,
        metadata=body.metadata,
        created_by=principal.actor,
        correlation_id=structlog.contextvars.get_contextvars().get("correlation_id"),
        steering=steering,
    )

    async def work(
        connection: AsyncConnection, now: datetime, repeated: UUID | None
    ) -> tuple[FoundRefund, RefundMoved | None]:
        if repeated is not None:
            return found_or_404(await find_refund(connection, repeated, Visible())), None
        if api.worker_versions.has_0_1():
            raise OlderWorkers("refunds")
        answer = await request_refund(connection, payment.id, wanted, now=now)
        match answer:
            case None:
                raise Problem(Code.NOT_FOUND)
            case NotRefundable(refused):
                raise not_refundable(refused.status, refused.since)
            case ExceedsBalance(refused):
                raise exceeds_balance(refused.status, await status_since(connection, refused), refused.amounts)
            case RefundMoved(refund, of_payment):
                return FoundRefund(refund, of_payment.order_id, of_payment.currency), answer
            case _:
                assert_never(answer)

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/refunds",
        content=content_with_steering(body) if key else None,
        object_id=wanted.id,
    )
    (refund, moved), is_replay = await run_idempotent(api, key_request, work)
    if moved is not None:
        log.info("refund.accepted", refund_id=str(refund.id), payment_id=str(payment.id))
        _publish(api, moved)
    shown = await await_settled(api, REFUND, refund, wait)
    is_created = wait is not None and shown.is_settled and not is_replay
    headers = {"Location": refund_location(request, shown.id)} | version_headers(shown, wait)
    if is_replay:
        headers |= REPLAYED_HEADER
    return json_response(shown.to_json(), status=201 if is_created else 202, headers=headers)


@of_payments.get(
    "/{payment_id}/refunds",
    response_model=schemas.RefundsOfPayment,
    responses=problems(Code.NOT_FOUND) | success(200, "A page of refunds.", example=money_examples.PAYMENT_REFUNDS),
)
async def list_payment_refunds(
    payment_id: str, principal: Authenticated, api: ApiState, limit: Limit = LIMIT_MAX, cursor: Cursor = None
) -> Response:
    """List the refunds of a payment, the newest first."""
    payment = await read_payment(api, principal, payment_id)
    page = open_page(api.runtime.keyring, cursor, {}, limit=limit, owner=f"{principal.actor} refunds of {payment.id}")
    async with api.runtime.database.read() as connection:
        found = await find_newest_refunds(
            connection, Visible(), RefundFilters(payment_id=payment.id), limit=page.fetch_limit, before=page.last
        )
    shown = page.to_json("refunds", found, FoundRefund.to_json)
    return json_response({"payment_id": str(payment.id), **shown})


@router.get(
    "",
    response_model=schemas.RefundList,
    responses=problems() | success(200, "A page of refunds.", example=money_examples.REFUNDS),
)
async def list_refunds(
    principal: Authenticated,
    api: ApiState,
    status: RefundStatus | None = None,
    payment_id: Annotated[str | None, Query(description="Refunds of this payment.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """List refunds, the newest first: those of all payments that you may see."""
    if payment_id is not None and parse_id(payment_id) is None:
        raise invalid("/query/payment_id", "must be the id of a payment")
    given = {"status": status, "payment_id": payment_id}
    filters = {name: value for name, value in given.items() if value is not None}
    page = open_page(api.runtime.keyring, cursor, filters, limit=limit, owner=f"{principal.actor} refunds")
    async with api.runtime.database.read() as connection:
        found = await find_newest_refunds(
            connection,
            api.permissions.visible(principal),
            _filters(page.filters),
            limit=page.fetch_limit,
            before=page.last,
        )
    return json_response(page.to_json("refunds", found, FoundRefund.to_json))


@router.get(
    "/{refund_id}",
    response_model=schemas.Refund,
    responses=problems(Code.NOT_FOUND)
    | success(200, "The refund.", example=money_examples.REFUND)
    | success(304, "The ETag in `If-None-Match` is still current."),
)
async def get_refund(
    request: Request,
    refund_id: str,
    principal: Authenticated,
    api: ApiState,
    prefer: Prefer = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return a refund. With `Prefer: wait=N` the answer is held until the refund has ended, for at most N seconds."""
    wait = parse_prefer_wait(prefer, request, if_none_match=if_none_match)
    refund = await read_refund(api, principal, refund_id, wait)
    return conditional_response(refund, refund.to_json(), if_none_match, wait=wait)


@router.get(
    "/{refund_id}/history",
    response_model=schemas.RefundHistory,
    responses=problems(Code.NOT_FOUND) | success(200, "The history.", example=money_examples.REFUND_HISTORY),
)
async def get_refund_history(refund_id: str, principal: Authenticated, api: ApiState) -> Response:
    """List every change of a refund's status and every claim by a worker, the oldest first."""
    refund = await read_refund(api, principal, refund_id)
    async with api.runtime.database.read() as connection:
        history = await history_of(connection, refund.id, names_workers=principal.role is Role.ADMIN)
    return json_response({"refund_id": str(refund.id), "history": history})


@router.post(
    "/{refund_id}/cancel",
    response_model=schemas.Refund,
    responses=problems(*KEYED, Code.FORBIDDEN, Code.NOT_FOUND, Code.REFUND_NOT_CANCELLABLE)
    | success(200, "The refund is cancelled.", example=money_examples.REFUND_CANCELLED, headers=("ETag",)),
)
async def cancel_refund_request(
    refund_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Cancel a refund that is still PENDING. Its amount may be refunded again; cancelling it again changes nothing.

    Once a worker has claimed the refund, the answer is 409 `refund_not_cancellable`. For services and admins.
    """
    found = await read_refund(api, principal, refund_id)
    api.permissions.require_merchant(principal)

    async def work(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> RefundMoved | FoundRefund:
        if repeated is not None:
            return found_or_404(await find_refund(connection, found.id, Visible()))
        moved = found_or_404(await cancel_refund(connection, found.refund, by=principal.actor, now=now))
        if not (moved.is_moved or moved.refund.status is RefundStatus.CANCELLED):
            raise refund_not_cancellable(moved.refund.status, moved.refund.updated_at)
        return moved

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /refunds/{found.id}/cancel",
        content={},
        object_id=found.id,
    )
    answer, is_replay = await run_idempotent(api, key_request, work)
    cancelled = FoundRefund(answer.refund, found.order_id, found.currency)
    if isinstance(answer, RefundMoved) and answer.is_moved:
        log.info("refund.cancelled", refund_id=str(found.id))
        _publish(api, answer)
    headers = version_headers(cancelled) | (REPLAYED_HEADER if is_replay else {})
    return json_response(cancelled.to_json(), headers=headers)


def _publish(api: Api, moved: RefundMoved) -> None:
    """Publish what a committed step of a refund made due, and end the waits for the payment's next version."""
    api.publisher.publish(Queue.DELIVER, moved.deliveries)
    api.publisher.publish(Queue.REFUND, moved.work)
    ended = [moved.refund.id] if moved.refund.status.has_ended else []
    api.publisher.notify_settled([*ended, moved.payment.id])


def _filters(wanted: Mapping[str, Any]) -> RefundFilters:
    payment_id = wanted.get("payment_id")
    return RefundFilters(status=wanted.get("status"), payment_id=UUID(payment_id) if payment_id else None)
