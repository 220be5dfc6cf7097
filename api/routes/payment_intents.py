"""Accepting payment intents. Nothing is processed here: a worker does that."""

from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.approval.links import payment_json
from api.auth.dependencies import Authenticated
from api.auth.principal import Principal, Role
from api.openapi import examples
from api.openapi.responses import BODY, KEYED, NEVER_HELD, problems, success
from api.paths import PAYMENTS
from api.problems import Code, Problem
from api.responses import json_response
from api.routes.conditional import version_headers
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of
from api.routes.parameters import ApiState, Prefer, Wait, location, parse_prefer_wait
from api.routes.ready_made import require_simulation
from api.routes.steering import steering_of
from api.routes.strict_route import StrictRoute
from api.routes.waits import PAYMENT, await_accepted, await_settled
from api.schemas import payments as schemas
from api.state import Api
from shared.ids import new_id, parse_id
from shared.lifecycle import CaptureMethod
from shared.payments.intent import Intent
from shared.payments.payment import Payment
from shared.simulation.ready_made import NAME_PREFIX, READY_MADE, ReadyMade

router = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["payments"])

# The id of no payment method.
NO_METHOD = UUID(int=0)


@router.post(
    "",
    status_code=202,
    response_model=schemas.Payment,
    responses=problems(
        *BODY,
        *KEYED,
        Code.FORBIDDEN,
        Code.SIMULATION_DISABLED,
        Code.PAYMENT_IN_PROGRESS,
        Code.ORDER_ALREADY_PAID,
        Code.PAYMENT_METHOD_UNUSABLE,
        Code.CALLBACK_URL_REFUSED,
    )
    | success(202, "The payment is accepted.", example=examples.PENDING, headers=("Location", "ETag"))
    | success(
        201,
        "The payment ended, was authorized or requires its customer's action, while the answer was held "
        "(`Prefer: wait=N`).",
        model=schemas.Payment,
        example=examples.COMPLETED,
        headers=("Location", "ETag"),
        never=NEVER_HELD,
    ),
)
async def create_payment(
    request: Request,
    body: schemas.PaymentRequest,
    principal: Authenticated,
    api: ApiState,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Accept a payment intent.

    The payment is committed before the answer (202), so it will be processed even if this service is restarted. With
    `Prefer: wait=N` the answer is held until the payment has ended, or is REQUIRES_ACTION or AUTHORIZED (201), or for N
    seconds (202). If it is REQUIRES_ACTION, send the customer to the URL in `next_action`.
    """
    wait = parse_prefer_wait(prefer, request)
    intent = _intent(body, principal, api, key)
    if wait is None:
        accepted = await api.accept(intent)
        return _accepted(request, principal, accepted.payment, is_replay=accepted.is_replay)
    async with api.long_polls.subscribe(intent.id, PAYMENT.find_many) as waiter:
        accepted = await api.accept(intent)
        api.admission.leave(request.scope)
        payment = accepted.payment if accepted.is_replay else await await_accepted(api, waiter, accepted.payment, wait)
    if accepted.is_replay:
        # A repeat waits for the payment of the first request, with one waiter and not with two.
        payment = await await_settled(api, PAYMENT, payment, wait)
    return _accepted(request, principal, payment, is_replay=accepted.is_replay, wait=wait)


def _intent(body: schemas.PaymentRequest, principal: Principal, api: Api, key: str | None) -> Intent:
    if body.user_id is not None and principal.role == Role.USER:
        raise Problem(Code.FORBIDDEN, "Only services and admins may pay for another user.")
    ready_made = _ready_made(body.payment_method_id, api)
    steering = steering_of(body.simulation, api)
    intent_id = new_id()
    return Intent(
        id=intent_id,
        user_id=body.user_id or principal.user_id,
        created_by=principal.actor,
        visible=api.permissions.visible(principal),
        order_id=body.order_id,
        # A text that is not an id is refused like the id of an unknown method.
        payment_method_id=ready_made.id if ready_made else parse_id(body.payment_method_id) or NO_METHOD,
        ready_made=ready_made,
        amount=body.amount,
        currency=body.currency,
        description=body.description,
        metadata=body.metadata,
        callback_url=body.callback_url,
        capture_method=body.capture_method,
        return_url=body.return_url,
        steering=steering,
        correlation_id=structlog.contextvars.get_contextvars().get("correlation_id"),
        idempotency=key_request_of(
            api.runtime.keyring,
            principal,
            key,
            operation="POST /payments",
            content=_content(body) if key else None,
            object_id=intent_id,
        ),
    )


def _content(body: schemas.PaymentRequest) -> dict[str, Any]:
    """Return the content by which two requests are the same.

    A request without the members that came after 0.1 has the content that it had then, so that a repeat is recognised
    after an upgrade.
    """
    added = {
        "capture_method": body.capture_method is CaptureMethod.MANUAL,
        "return_url": body.return_url is not None,
        "simulation": body.simulation is not None,
    }
    return body.model_dump(exclude={name for name, is_given in added.items() if not is_given})


def _ready_made(name: str, api: Api) -> ReadyMade | None:
    """Return the ready-made method with this name; None for an id.

    Raises Problem (simulation_disabled) where SIMULATION is off. Where it is on, the name of no method is refused while
    the body is validated.
    """
    if not name.startswith(NAME_PREFIX):
        return None
    require_simulation(api)
    return READY_MADE[name]


def _accepted(
    request: Request, principal: Principal, payment: Payment, *, is_replay: bool, wait: Wait | None = None
) -> Response:
    headers = {"Location": location(request, payment.id)} | version_headers(payment, wait)
    if is_replay:
        headers |= REPLAYED_HEADER
    is_created = wait is not None and payment.is_settled and not is_replay
    return json_response(payment_json(request, principal, payment), status=201 if is_created else 202, headers=headers)
