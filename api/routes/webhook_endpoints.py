"""Webhook endpoints: the URLs at which services and admins receive the events of all payments."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Privileged
from api.auth.principal import Principal
from api.openapi import examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.problems import Code, Problem, found_or_404
from api.responses import json_response
from api.routes.cursors import Cursor, Limit, open_page
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, location, parse_path_id
from api.routes.strict_route import StrictRoute
from api.schemas import webhooks as schemas
from api.state import Api
from shared.delivery_lifecycle import DeliveryStatus
from shared.ids import new_id
from shared.keyring import new_webhook_secret
from shared.webhooks.delivery_log import Delivery, deliveries_of_endpoint
from shared.webhooks.endpoints import (
    Endpoint,
    add_endpoint,
    change_endpoint,
    delete_endpoint,
    endpoints_of,
    find_endpoint,
)

router = APIRouter(route_class=StrictRoute, prefix="/webhook-endpoints", tags=["webhooks"])


@router.post(
    "",
    status_code=201,
    response_model=schemas.EndpointWithSecret,
    responses=problems(*BODY, *KEYED, Code.FORBIDDEN, Code.NOT_FOUND, Code.CALLBACK_URL_REFUSED)
    | success(201, "The endpoint is registered.", example=examples.NEW_ENDPOINT, headers=("Location", "Cache-Control")),
)
async def create_webhook_endpoint(
    request: Request,
    body: schemas.EndpointRequest,
    principal: Privileged,
    api: ApiState,
    key: IdempotencyKey = None,
) -> Response:
    """Register a webhook endpoint. The answer has the secret that signs its deliveries; it is shown only this once."""
    endpoint_id, secret = new_id(), new_webhook_secret()

    async def add(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> Endpoint:
        if repeated is not None:
            return await _existing(connection, repeated, principal)
        return await add_endpoint(
            connection,
            endpoint_id=endpoint_id,
            created_by=principal.actor,
            name=body.name,
            url=body.url,
            event_types=body.event_types,
            encrypted_secret=api.runtime.keyring.encrypt(secret),
            now=now,
        )

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation="POST /webhook-endpoints",
        content=body.model_dump() if key else None,
        object_id=endpoint_id,
    )
    endpoint, is_repeat = await run_idempotent(api, key_request, add)
    shown = _to_json(endpoint, api) if is_repeat else {**_to_json(endpoint, api), "secret": secret}
    # The secret must not stay in a cache.
    headers = {"Location": location(request, endpoint.id), "Cache-Control": "no-store"} | (
        REPLAYED_HEADER if is_repeat else {}
    )
    return json_response(shown, status=201, headers=headers)


@router.get(
    "",
    response_model=schemas.EndpointList,
    responses=problems(Code.FORBIDDEN) | success(200, "The endpoints.", example=examples.ENDPOINTS),
)
async def list_webhook_endpoints(principal: Privileged, api: ApiState) -> Response:
    """List webhook endpoints, the newest first. Services see those that they created, and admins all."""
    async with api.runtime.database.read() as connection:
        found = await endpoints_of(connection, created_by=principal.manages_endpoints_of)
    return json_response({"webhook_endpoints": [_to_json(endpoint, api) for endpoint in found]})


@router.get(
    "/{endpoint_id}",
    response_model=schemas.Endpoint,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND) | success(200, "The endpoint.", example=examples.ENDPOINT),
)
async def get_webhook_endpoint(endpoint_id: str, principal: Privileged, api: ApiState) -> Response:
    """Return one webhook endpoint, without its secret."""
    async with api.runtime.database.read() as connection:
        endpoint = await _existing(connection, parse_path_id(endpoint_id), principal)
    return json_response(_to_json(endpoint, api))


@router.patch(
    "/{endpoint_id}",
    response_model=schemas.Endpoint,
    responses=problems(*BODY, Code.FORBIDDEN, Code.NOT_FOUND, Code.CALLBACK_URL_REFUSED, Code.OUTCOME_UNKNOWN)
    | success(200, "The endpoint as it is now.", example=examples.ENDPOINT),
)
async def change_webhook_endpoint(
    endpoint_id: str, body: schemas.EndpointChange, principal: Privileged, api: ApiState
) -> Response:
    """Change a webhook endpoint. Disabling it cancels its open deliveries."""
    async with api.runtime.database.transaction() as connection:
        endpoint = await _existing(connection, parse_path_id(endpoint_id), principal)
        now = await api.runtime.database.clock.now(connection)
        changed = found_or_404(await change_endpoint(connection, endpoint, body.model_dump(), now=now))
    return json_response(_to_json(changed, api))


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND, Code.OUTCOME_UNKNOWN) | success(204, "The endpoint is deleted."),
)
async def delete_webhook_endpoint(endpoint_id: str, principal: Privileged, api: ApiState) -> Response:
    """Delete a webhook endpoint and cancel its open deliveries."""
    async with api.runtime.database.transaction() as connection:
        endpoint = await _existing(connection, parse_path_id(endpoint_id), principal)
        now = await api.runtime.database.clock.now(connection)
        if not await delete_endpoint(connection, endpoint, now=now):
            raise Problem(Code.NOT_FOUND)
    return Response(status_code=204)


@router.get(
    "/{endpoint_id}/deliveries",
    response_model=schemas.EndpointDeliveries,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND)
    | success(200, "A page of deliveries.", example=examples.ENDPOINT_DELIVERIES),
)
async def list_endpoint_deliveries(
    endpoint_id: str,
    principal: Privileged,
    api: ApiState,
    status: DeliveryStatus | None = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """List the deliveries to a webhook endpoint, the newest first, each with its attempts but without the answers.

    A page with many attempts ends before `limit`.
    """
    endpoint_key = parse_path_id(endpoint_id)
    page = open_page(
        api.runtime.keyring,
        cursor,
        {"status": status} if status else {},
        limit=limit,
        owner=f"{principal.actor} {endpoint_key}",
    )
    async with api.runtime.database.read() as connection:
        endpoint = await _existing(connection, endpoint_key, principal)
        found = await deliveries_of_endpoint(
            connection,
            endpoint.id,
            DeliveryStatus(page.filters["status"]) if page.filters else None,
            limit=page.limit,
            before_id=page.last,
        )
    to_json = partial(Delivery.to_json, with_url=True)
    return json_response(page.to_json("deliveries", found.deliveries, to_json, has_more=found.has_more))


def _to_json(endpoint: Endpoint, api: Api) -> dict[str, Any]:
    return endpoint.to_json(has_readable_secret=api.runtime.keyring.can_decrypt(endpoint.secret))


async def _existing(connection: AsyncConnection, endpoint_id: UUID, principal: Principal) -> Endpoint:
    return found_or_404(await find_endpoint(connection, endpoint_id, created_by=principal.manages_endpoints_of))
