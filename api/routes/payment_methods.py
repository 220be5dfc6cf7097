"""Payment methods: cards and accounts. A number is looked at once, while it is added, and then forgotten."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api import schemas
from api.auth import Authenticated, Principal, Role
from api.errors import Code, Problem, invalid
from api.openapi import also, problems
from api.repeats import REPEATED, once
from api.requests import ApiState, IdempotencyKey, claim_of, existing_id, location
from api.responses import document
from api.state import Api
from shared.cards import CardRefused, digits_of, expires_at, inspect_card, mask_address, scenario_of_address
from shared.ids import new_id
from shared.lifecycle import MethodType
from shared.payment_methods import (
    Method,
    NewMethod,
    add_method,
    change_method,
    delete_method,
    find_method,
    methods_of,
)

router = APIRouter(tags=["payment methods"])  # mounted twice, at addresses that differ in more than a prefix


@router.post(
    "",
    status_code=201,
    response_model=schemas.Method,
    responses=problems(400, 413, 415, 422, 503) | also(200, schemas.Method, "You have this one already."),
)
async def create_payment_method(
    request: Request,
    body: Annotated[schemas.MethodRequest, Body()],
    principal: Authenticated,
    api: ApiState,
    key: IdempotencyKey = None,
) -> Response:
    """Add a card or a PayPal account. What is kept is its brand, its last four digits and its expiry."""
    try:
        new = _new_method(body, principal, api)
    except CardRefused as error:
        raise invalid(f"/payment_details/{error.field}", error.reason) from None
    method_id = new_id()

    async def add(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> tuple[Method, bool]:
        if repeated is not None:
            return await _added_before(connection, repeated, new)
        if new.expires_at is not None and new.expires_at <= now:
            raise invalid("/payment_details/exp_year", "the card has expired")
        limit = api.runtime.settings.max_payment_methods_per_user
        return await add_method(connection, new, method_id=method_id, methods_max=limit, now=now)

    claim = claim_of(
        api.runtime.vault,
        principal,
        key,
        operation="POST /payment-methods",
        content=_without_cvc(body, new) if key else None,
        object_id=method_id,
    )
    (method, is_new), is_repeat = await once(api.runtime.database, claim, add)
    return document(
        method.document(),
        status=201 if is_new else 200,
        headers={"Location": location(request, method.id)} | (REPEATED if is_repeat else {}),
    )


@router.get("", response_model=schemas.MethodList, responses=problems(503))
async def list_payment_methods(principal: Authenticated, api: ApiState) -> Response:
    """Your methods, the newest first."""
    async with api.runtime.database.read() as connection:
        found = await methods_of(connection, principal.user_id)
    return document({"payment_methods": [method.document() for method in found]})


@router.get("/{method_id}", response_model=schemas.Method, responses=problems(404, 503))
async def get_payment_method(method_id: str, principal: Authenticated, api: ApiState) -> Response:
    """One method."""
    async with api.runtime.database.read() as connection:
        method = await _existing(connection, existing_id(method_id), principal)
    return document(method.document())


@router.patch("/{method_id}", response_model=schemas.Method, responses=problems(400, 404, 413, 415, 422, 503))
async def change_payment_method(
    method_id: str, body: schemas.MethodChange, principal: Authenticated, api: ApiState
) -> Response:
    """Rename a method, or make it the default."""
    async with api.runtime.database.transaction() as connection:
        method = await _existing(connection, existing_id(method_id), principal)
        changed = await change_method(
            connection,
            method,
            display_name=body.display_name,
            make_default=bool(body.is_default),
            now=await api.runtime.database.clock.now(connection),
        )
        found = _or_404(changed)  # in here: where the method is gone by now, the old default stays
    return document(found.document())


@router.delete("/{method_id}", status_code=204, responses=problems(404, 503))
async def delete_payment_method(method_id: str, principal: Authenticated, api: ApiState) -> Response:
    """Delete a method; payments that were accepted with it go on."""
    async with api.runtime.database.transaction() as connection:
        method = await _existing(connection, existing_id(method_id), principal)
        now = await api.runtime.database.clock.now(connection)
        if not await delete_method(connection, method, now=now):
            raise Problem(Code.NOT_FOUND)
    return Response(status_code=204)


async def _existing(connection: AsyncConnection, method_id: UUID, principal: Principal) -> Method:
    owner = None if principal.role == Role.ADMIN else principal.user_id
    return _or_404(await find_method(connection, method_id, user_id=owner))


async def _added_before(connection: AsyncConnection, method_id: UUID, new: NewMethod) -> tuple[Method, bool]:
    """What a repeat is about: the method that the first request added, or found there and added nothing."""
    added = await find_method(connection, method_id, user_id=new.user_id)
    if added is not None:
        return added, True
    active = await methods_of(connection, new.user_id)
    return _or_404(next((method for method in active if method.fingerprint == new.fingerprint), None)), False


def _or_404(method: Method | None) -> Method:
    if method is None:
        raise Problem(Code.NOT_FOUND)
    return method


def _new_method(body: schemas.MethodRequest, principal: Principal, api: Api) -> NewMethod:
    fingerprint = api.runtime.vault.fingerprint
    if isinstance(body, schemas.PaypalMethodRequest):
        email = body.payment_details.email
        masked = mask_address(email)
        return NewMethod(
            user_id=principal.user_id,
            type=MethodType.PAYPAL,
            display_name=body.display_name or f"PayPal {masked}"[:100],
            is_default=body.is_default,
            fingerprint=fingerprint("paypal", email.strip().lower()),
            details={"email": masked},
            scenario=scenario_of_address(email),
            expires_at=None,
        )
    card = body.payment_details
    inspected = inspect_card(card.card_number, card.cvv)
    return NewMethod(
        user_id=principal.user_id,
        type=MethodType(body.type),
        display_name=body.display_name or f"{inspected.brand.capitalize()} ending in {inspected.last4}",
        is_default=body.is_default,
        fingerprint=fingerprint("card", body.type, digits_of(card.card_number)),
        details={
            "brand": inspected.brand.value,
            "last4": inspected.last4,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
        },
        scenario=inspected.scenario,
        expires_at=expires_at(card.exp_month, card.exp_year),
    )


def _without_cvc(body: schemas.MethodRequest, new: NewMethod) -> dict[str, Any]:
    """What makes two requests the same: everything but the CVC; the number by its fingerprint."""
    sent = body.model_dump(exclude={"payment_details": {"cvv", "card_number"}})
    return {**sent, "fingerprint": new.fingerprint}
