"""Payment methods: cards and PayPal accounts. A card number is read once, while it is added, and never stored."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Authenticated
from api.cards import digits_of, expires_at, inspect_card
from api.fingerprints import address_fingerprint, card_fingerprint
from api.openapi import examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.paypal_addresses import mask_address, scenario_of_address
from api.problems import Code, Problem, found_or_404, invalid
from api.responses import json_response
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, NamedUser, location, parse_path_id
from api.routes.strict_route import StrictRoute
from api.schemas import payment_methods as schemas
from api.state import Api
from shared.database.tables import NAME_CHARS_MAX
from shared.ids import new_id
from shared.lifecycle import FailureCode, MethodType
from shared.payment_methods import (
    Method,
    NewMethod,
    add_method,
    change_method,
    delete_method,
    find_method,
    methods_of,
)
from shared.simulation.scenarios import Scenario

# Without a prefix of its own, because it is mounted at two different paths.
router = APIRouter(route_class=StrictRoute, tags=["payment methods"])


@router.post(
    "",
    status_code=201,
    response_model=schemas.Method,
    responses=problems(*BODY, *KEYED, Code.FORBIDDEN, Code.NOT_FOUND, Code.PAYMENT_METHOD_LIMIT)
    | success(201, "The payment method is added.", example=examples.METHOD, headers=("Location",))
    | success(
        200,
        "The user already has this payment method.",
        model=schemas.Method,
        example=examples.METHOD,
        headers=("Location",),
    ),
)
async def create_payment_method(
    request: Request,
    body: Annotated[schemas.MethodRequest, Body()],
    principal: Authenticated,
    api: ApiState,
    key: IdempotencyKey = None,
) -> Response:
    """Add a card or a PayPal account.

    A card number, a CVC and a full address are never stored. What is kept of a card is its brand, its last four digits
    and its expiry, of an account its masked address, and of both a keyed hash by which the same one is recognised. If
    the user already has the card or the account, the answer is 200, and the expiry of a card is updated. Services and
    admins add a method for the user that they name.
    """
    owner = api.permissions.owner_of_methods(principal, body.user_id)
    new = _new_method(body, owner, api)
    method_id = new_id()

    async def add(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> tuple[Method, bool]:
        if repeated is not None:
            return await _added_before(connection, repeated, new)
        if new.expires_at is not None and new.expires_at <= now:
            raise invalid("/payment_details/exp_year", schemas.HAS_EXPIRED)
        limit = api.runtime.settings.max_payment_methods_per_user
        return await add_method(connection, new, method_id=method_id, methods_max=limit, now=now)

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation="POST /payment-methods",
        content=_without_cvc(body, new) if key else None,
        object_id=method_id,
    )
    (method, is_new), is_repeat = await run_idempotent(api, key_request, add)
    return json_response(
        method.to_json(),
        status=201 if is_new else 200,
        headers={"Location": location(request, method.id, user_id=body.user_id)}
        | (REPLAYED_HEADER if is_repeat else {}),
    )


@router.get(
    "",
    response_model=schemas.MethodList,
    responses=problems(Code.FORBIDDEN) | success(200, "The payment methods.", example=examples.METHODS),
)
async def list_payment_methods(principal: Authenticated, api: ApiState, user_id: NamedUser = None) -> Response:
    """List your payment methods, the newest first. Services and admins list those of the user that they name."""
    owner = api.permissions.owner_of_methods(principal, user_id)
    async with api.runtime.database.read() as connection:
        found = await methods_of(connection, owner)
    return json_response({"payment_methods": [method.to_json() for method in found]})


@router.get(
    "/{method_id}",
    response_model=schemas.Method,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND) | success(200, "The payment method.", example=examples.METHOD),
)
async def get_payment_method(
    method_id: str, principal: Authenticated, api: ApiState, user_id: NamedUser = None
) -> Response:
    """Return one payment method. Services must name its user, admins may."""
    owner = api.permissions.owner_of_method(principal, user_id)
    async with api.runtime.database.read() as connection:
        method = await _existing(connection, parse_path_id(method_id), owner)
    return json_response(method.to_json())


@router.patch(
    "/{method_id}",
    response_model=schemas.Method,
    responses=problems(*BODY, Code.FORBIDDEN, Code.NOT_FOUND, Code.OUTCOME_UNKNOWN)
    | success(200, "The payment method as it is now.", example=examples.METHOD),
)
async def change_payment_method(
    method_id: str, body: schemas.MethodChange, principal: Authenticated, api: ApiState, user_id: NamedUser = None
) -> Response:
    """Rename a payment method, make it the default, or both. Services must name its user, admins may."""
    owner = api.permissions.owner_of_method(principal, user_id)
    async with api.runtime.database.transaction() as connection:
        method = await _existing(connection, parse_path_id(method_id), owner)
        changed = await change_method(
            connection,
            method,
            display_name=body.display_name,
            make_default=bool(body.is_default),
            now=await api.runtime.database.clock.now(connection),
        )
        # This is within the transaction: if the method is gone by now, the rollback keeps the old default.
        found = found_or_404(changed)
    return json_response(found.to_json())


@router.delete(
    "/{method_id}",
    status_code=204,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND, Code.OUTCOME_UNKNOWN)
    | success(204, "The payment method is deleted."),
)
async def delete_payment_method(
    method_id: str, principal: Authenticated, api: ApiState, user_id: NamedUser = None
) -> Response:
    """Delete a payment method. Payments that were accepted with it are still processed.

    If it was the default, the newest of the others becomes the default. Services must name its user, admins may.
    """
    owner = api.permissions.owner_of_method(principal, user_id)
    async with api.runtime.database.transaction() as connection:
        method = await _existing(connection, parse_path_id(method_id), owner)
        now = await api.runtime.database.clock.now(connection)
        if not await delete_method(connection, method, now=now):
            raise Problem(Code.NOT_FOUND)
    return Response(status_code=204)


async def _existing(connection: AsyncConnection, method_id: UUID, owner: str | None) -> Method:
    return found_or_404(await find_method(connection, method_id, user_id=owner))


async def _added_before(connection: AsyncConnection, method_id: UUID, new: NewMethod) -> tuple[Method, bool]:
    """Return the method of a repeated request, and whether the first request added it.

    If the first request found that the user already had the method, its id was never used.
    """
    added = await find_method(connection, method_id, user_id=new.user_id)
    if added is not None:
        return added, True
    active = await methods_of(connection, new.user_id)
    return found_or_404(next((method for method in active if method.fingerprint == new.fingerprint), None)), False


def _new_method(body: schemas.MethodRequest, owner: str, api: Api) -> NewMethod:
    keyring = api.runtime.keyring
    if isinstance(body, schemas.PaypalMethodRequest):
        address = body.payment_details.email
        masked = mask_address(address)
        return NewMethod(
            user_id=owner,
            type=MethodType.PAYPAL,
            display_name=body.display_name or f"PayPal {masked}"[:NAME_CHARS_MAX],
            is_default=body.is_default,
            fingerprint=address_fingerprint(keyring, address),
            details={"email": masked},
            scenario=_stored_scenario(scenario_of_address(address)),
            expires_at=None,
        )
    card = body.payment_details
    inspected = inspect_card(card.card_number, card.cvv)
    return NewMethod(
        user_id=owner,
        type=MethodType(body.type),
        display_name=body.display_name or f"{inspected.brand.capitalize()} ending in {inspected.last4}",
        is_default=body.is_default,
        fingerprint=card_fingerprint(keyring, body.type, digits_of(card.card_number)),
        details={
            "brand": inspected.brand.value,
            "last4": inspected.last4,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
        },
        scenario=_stored_scenario(inspected.scenario),
        expires_at=expires_at(card.exp_month, card.exp_year),
    )


def _stored_scenario(scenario: Scenario | None) -> FailureCode | None:
    """Return what the column keeps of a scenario: 0.1 knows failures only. The fingerprint tells this version all."""
    return scenario.failure if scenario else None


def _without_cvc(body: schemas.MethodRequest, new: NewMethod) -> dict[str, Any]:
    """Return the content by which two requests are the same: all but the CVC, and the number as a fingerprint.

    A request that names no user has the content that it had in 0.1, so that a repeat is recognised after an upgrade.
    """
    sent = body.model_dump(exclude={"payment_details": {"cvv", "card_number"}})
    if body.user_id is None:
        del sent["user_id"]
    return {**sent, "fingerprint": new.fingerprint}
