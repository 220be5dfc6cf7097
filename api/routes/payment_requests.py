"""What a client asks of a payment that exists: to cancel it, or to capture its authorization."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Authenticated
from api.openapi import examples, money_examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.paths import PAYMENTS
from api.problems import Code, found_or_404, invalid
from api.responses import json_response
from api.routes.conditional import version_headers
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, Work, key_request_of, run_idempotent
from api.routes.parameters import ApiState, Prefer, parse_prefer_wait
from api.routes.strict_route import StrictRoute
from api.routes.waits import PAYMENT, await_settled, read_payment
from api.schemas import captures as schemas
from api.schemas.payments import Payment as PaymentModel
from api.state import Api
from shared.broker.client import Queue
from shared.errors import OlderWorkers
from shared.lifecycle import PaymentStatus
from shared.payments.find import Visible, find
from shared.payments.history import status_since
from shared.payments.refusals import not_cancellable, not_capturable
from shared.payments.requests import Requested, cancel, capture

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["payments"])

type Ask = Callable[[AsyncConnection, datetime], Awaitable[Requested]]
"""Asks something of a payment, in an open transaction. Raises Refused if that cannot be done."""


@router.post(
    "/{payment_id}/capture",
    status_code=202,
    response_model=PaymentModel,
    responses=problems(*BODY, *KEYED, Code.FORBIDDEN, Code.NOT_FOUND, Code.PAYMENT_NOT_CAPTURABLE)
    | success(202, "The payment is about to be captured.", example=money_examples.CAPTURING, headers=("ETag",))
    | success(
        200,
        "The payment is captured, or the capture failed and it is AUTHORIZED again (`Prefer: wait=N`).",
        model=PaymentModel,
        example=money_examples.CAPTURED,
        headers=("ETag",),
    ),
)
async def capture_payment(
    request: Request,
    payment_id: str,
    principal: Authenticated,
    api: ApiState,
    body: Annotated[schemas.CaptureRequest, Body(default_factory=schemas.CaptureRequest)],
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Capture an AUTHORIZED payment.

    Without `amount`, or without a body, all that is authorized is captured; the rest of a partial capture is released.
    A payment is captured once. If the capture fails, the payment is AUTHORIZED again, and may be captured again until
    `capture_before`. For services and admins.
    """
    wait = parse_prefer_wait(prefer, request)
    payment = await read_payment(api, principal, payment_id)
    api.permissions.require_merchant(principal)

    async def ask(connection: AsyncConnection, now: datetime) -> Requested:
        if body.amount is not None and body.amount > payment.amount:
            raise invalid("/amount", f"must be between 1 and {payment.amount} minor units, which are authorized")
        asked = found_or_404(await capture(connection, payment.id, amount=body.amount, by=principal.actor, now=now))
        if not asked.is_moved:
            raise not_capturable(asked.payment.status, await status_since(connection, asked.payment))
        return asked

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/capture",
        content=body.model_dump() if key else None,
        object_id=payment.id,
    )
    asked, is_replay = await run_idempotent(api, key_request, _once(api, payment.id, ask))
    if asked.is_moved:
        log.info("payment.capture_requested", payment_id=str(payment.id))
        _publish(api, asked)
    captured = await await_settled(api, PAYMENT, asked.payment, wait)
    is_done = wait is not None and captured.is_settled and not is_replay
    headers = version_headers(captured, wait) | (REPLAYED_HEADER if is_replay else {})
    return json_response(captured.to_json(), status=200 if is_done else 202, headers=headers)


@router.post(
    "/{payment_id}/cancel",
    response_model=PaymentModel,
    responses=problems(*KEYED, Code.NOT_FOUND, Code.PAYMENT_NOT_CANCELLABLE)
    | success(200, "The payment is cancelled.", example=examples.CANCELLED, headers=("ETag",))
    | success(
        202,
        "The payment was AUTHORIZED and is about to be voided.",
        model=PaymentModel,
        example=money_examples.VOIDING,
        headers=("ETag", "Retry-After"),
    ),
)
async def cancel_payment(
    payment_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Cancel a payment that is PENDING or AUTHORIZED. Cancelling it again changes nothing.

    A PENDING payment is CANCELLED at once. An AUTHORIZED one is voided by a worker first (202), and is CANCELLED when
    the gateway has released the funds. In any other status the answer is 409 `payment_not_cancellable`.
    """
    payment = await read_payment(api, principal, payment_id)

    async def ask(connection: AsyncConnection, now: datetime) -> Requested:
        asked = found_or_404(await cancel(connection, payment.id, by=principal.actor, now=now))
        if not (asked.is_moved or asked.payment.status is PaymentStatus.CANCELLED):
            raise not_cancellable(asked.payment.status, await status_since(connection, asked.payment))
        return asked

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/cancel",
        content={},
        object_id=payment.id,
    )
    asked, is_replay = await run_idempotent(api, key_request, _once(api, payment.id, ask))
    cancelled = asked.payment
    if asked.is_moved:
        is_void = cancelled.status is not PaymentStatus.CANCELLED
        log.info("payment.void_requested" if is_void else "payment.cancelled", payment_id=str(payment.id))
        _publish(api, asked)
    headers = version_headers(cancelled) | (REPLAYED_HEADER if is_replay else {})
    status = 200 if cancelled.status is PaymentStatus.CANCELLED else 202
    return json_response(cancelled.to_json(), status=status, headers=headers)


def _once(api: Api, payment_id: UUID, ask: Ask) -> Work[Requested]:
    """Return the work of an idempotent request: `ask`, and for a repeat the payment as it is now."""

    async def work(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> Requested:
        if repeated is not None:
            return Requested(found_or_404(await find(connection, payment_id, Visible())), is_moved=False)
        asked = await ask(connection, now)
        # Such a worker would take the capture or the void for a charge.
        if asked.work and api.worker_versions.has_0_1():
            raise OlderWorkers("captures and voids")
        return asked

    return work


def _publish(api: Api, asked: Requested) -> None:
    api.publisher.publish(Queue.DELIVER, asked.deliveries)
    api.publisher.publish(Queue.PROCESS, asked.work)
    if asked.payment.is_settled:
        api.publisher.notify_settled([asked.payment.id])
