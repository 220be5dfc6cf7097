"""What a client asks of a payment that exists: to cancel it, to capture it, or to answer for its customer."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.approval.answers import log_answer
from api.approval.links import payment_json
from api.auth.dependencies import Authenticated
from api.auth.principal import Principal
from api.openapi import examples, money_examples
from api.openapi.responses import BODY, KEYED, NEVER_HELD, problems, success
from api.paths import PAYMENTS
from api.problems import Code, found_or_404, invalid
from api.responses import json_response
from api.routes.conditional import version_headers
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, Work, key_request_of, run_idempotent
from api.routes.parameters import ApiState, Prefer, Wait, parse_prefer_wait
from api.routes.ready_made import require_simulation
from api.routes.steering import content_with_steering, steering_of
from api.routes.strict_route import StrictRoute
from api.routes.waits import PAYMENT, await_settled, read_payment
from api.schemas import actions as action_schemas
from api.schemas import captures as schemas
from api.schemas.payments import Payment as PaymentModel
from api.state import Api
from shared.errors import OlderWorkers
from shared.lifecycle import PaymentStatus
from shared.payments.find import Visible, find
from shared.payments.history import status_since
from shared.payments.payment import Payment
from shared.payments.refusals import no_action_required, not_cancellable, not_capturable
from shared.payments.requests import Requested, answer_action, cancel, capture

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["payments"])

type Ask = Callable[[AsyncConnection, datetime], Awaitable[Requested]]
"""Asks something of a payment, in an open transaction. Raises Refused if that cannot be done."""


@router.post(
    "/{payment_id}/capture",
    status_code=202,
    response_model=PaymentModel,
    responses=problems(
        *BODY, *KEYED, Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.NOT_FOUND, Code.PAYMENT_NOT_CAPTURABLE
    )
    | success(202, "The payment is about to be captured.", example=money_examples.CAPTURING, headers=("ETag",))
    | success(
        200,
        "The payment is captured, or the capture failed and it is AUTHORIZED again (`Prefer: wait=N`).",
        model=PaymentModel,
        example=money_examples.CAPTURED,
        headers=("ETag",),
        never=NEVER_HELD,
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
    steering = steering_of(body.simulation, api)

    async def ask(connection: AsyncConnection, now: datetime) -> Requested:
        if body.amount is not None and body.amount > payment.amount:
            raise invalid("/amount", f"must be between 1 and {payment.amount} minor units, which are authorized")
        asked = found_or_404(
            await capture(connection, payment.id, amount=body.amount, steering=steering, by=principal.actor, now=now)
        )
        if not asked.is_moved:
            raise not_capturable(asked.payment.status, await status_since(connection, asked.payment))
        return asked

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/capture",
        content=content_with_steering(body) if key else None,
        object_id=payment.id,
    )
    asked, is_replay = await run_idempotent(api, key_request, _once(api, payment.id, ask))
    if asked.is_moved:
        log.info("payment.capture_requested", payment_id=str(payment.id))
        api.publish_requested(asked)
    followed = await await_settled(api, PAYMENT, asked.payment, wait)
    return _followed(request, principal, followed, wait, is_replay=is_replay)


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
    request: Request, payment_id: str, principal: Authenticated, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Cancel a payment that is PENDING, REQUIRES_ACTION or AUTHORIZED. Cancelling it again changes nothing.

    A PENDING or REQUIRES_ACTION payment is CANCELLED at once. An AUTHORIZED one is voided by a worker first (202), and
    is CANCELLED when the gateway has released the funds. In any other status the answer is 409
    `payment_not_cancellable`.
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
        api.publish_requested(asked)
    headers = version_headers(cancelled) | (REPLAYED_HEADER if is_replay else {})
    status = 200 if cancelled.status is PaymentStatus.CANCELLED else 202
    return json_response(payment_json(request, principal, cancelled), status=status, headers=headers)


@router.post(
    "/{payment_id}/action",
    status_code=202,
    response_model=PaymentModel,
    responses=problems(*BODY, *KEYED, Code.SIMULATION_DISABLED, Code.NOT_FOUND, Code.NO_ACTION_REQUIRED)
    | success(202, "The answer is recorded.", example=money_examples.APPROVED, headers=("ETag",))
    | success(
        200,
        "The payment has ended, or is AUTHORIZED (`Prefer: wait=N`).",
        model=PaymentModel,
        example=money_examples.COMPLETED_AFTER_APPROVAL,
        headers=("ETag",),
        never=NEVER_HELD,
    ),
)
async def answer_payment_action(
    request: Request,
    payment_id: str,
    body: action_schemas.ActionRequest,
    principal: Authenticated,
    api: ApiState,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Answer for the customer of a payment that is REQUIRES_ACTION.

    For tests without a browser: the same as a press of a button at the page of `next_action`. An approved payment goes
    on at the gateway, a declined one is FAILED. Only where `SIMULATION` is on.
    """
    wait = parse_prefer_wait(prefer, request)
    require_simulation(api, "Answering for a customer needs SIMULATION=on. Send the customer to next_action.url.")
    payment = await read_payment(api, principal, payment_id)

    async def ask(connection: AsyncConnection, now: datetime) -> Requested:
        result = action_schemas.RESULTS[body.result]
        asked = found_or_404(await answer_action(connection, payment.id, result=result, by=principal.actor, now=now))
        if not asked.is_moved:
            raise no_action_required(asked.payment.status, await status_since(connection, asked.payment))
        return asked

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation=f"POST /payments/{payment.id}/action",
        content=body.model_dump() if key else None,
        object_id=payment.id,
    )
    asked, is_replay = await run_idempotent(api, key_request, _once(api, payment.id, ask))
    if asked.is_moved:
        log_answer(asked.payment)
        api.publish_requested(asked)
    followed = await await_settled(api, PAYMENT, asked.payment, wait)
    return _followed(request, principal, followed, wait, is_replay=is_replay)


def _followed(
    request: Request, principal: Principal, payment: Payment, wait: Wait | None, *, is_replay: bool
) -> Response:
    """Return the answer of a request that a worker goes on with: 200 if the payment was settled within the wait."""
    is_done = wait is not None and payment.is_settled and not is_replay
    headers = version_headers(payment, wait) | (REPLAYED_HEADER if is_replay else {})
    return json_response(payment_json(request, principal, payment), status=200 if is_done else 202, headers=headers)


def _once(api: Api, payment_id: UUID, ask: Ask) -> Work[Requested]:
    """Return the work of an idempotent request: `ask`, and for a repeat the payment as it is now."""

    async def work(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> Requested:
        if repeated is not None:
            return Requested(found_or_404(await find(connection, payment_id, Visible())), is_moved=False)
        asked = await ask(connection, now)
        # Such a worker would take the capture or the void for a charge, and ask for the approval again.
        if asked.work and api.worker_versions.has_0_1():
            raise OlderWorkers("captures, voids and approvals by customers")
        return asked

    return work
