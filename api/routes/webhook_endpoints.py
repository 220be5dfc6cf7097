"""Webhook endpoints: where services and admins want events delivered."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api import schemas
from api.auth import Principal, Privileged, Role
from api.errors import Code, Problem, invalid
from api.openapi import problems
from api.repeats import REPEATED, once
from api.requests import (
    ApiState,
    IdempotencyKey,
    check_receiver,
    claim_of,
    existing_id,
    open_cursor,
    seal_cursor,
)
from api.responses import document
from shared.delivery_log import deliveries_of_endpoint
from shared.ids import new_id
from shared.lifecycle import DeliveryStatus
from shared.vault import new_webhook_secret
from shared.webhook_endpoints import (
    Endpoint,
    add_endpoint,
    change_endpoint,
    delete_endpoint,
    endpoints_of,
    find_endpoint,
)

router = APIRouter(prefix="/webhook-endpoints", tags=["webhooks"])


@router.post("", status_code=201, response_model=schemas.NewEndpoint, responses=problems(400, 403, 413, 415, 422, 503))
async def create_webhook_endpoint(
    body: schemas.EndpointRequest, principal: Privileged, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Register a receiver. The answer holds the secret that signs its deliveries; it is never shown again."""
    check_receiver(api, "/url", body.url)
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
            encrypted_secret=api.runtime.vault.encrypt(secret),
            now=now,
        )

    claim = claim_of(
        api.runtime.vault,
        principal,
        key,
        operation="POST /webhook-endpoints",
        content=body.model_dump() if key else None,
        object_id=endpoint_id,
    )
    endpoint, is_repeat = await once(api.runtime.database, claim, add)
    shown = endpoint.document() if is_repeat else {**endpoint.document(), "secret": secret}
    headers = {"Location": f"/api/v1/webhook-endpoints/{endpoint.id}"} | (REPEATED if is_repeat else {})
    return document(shown, status=201, headers=headers)


@router.get("", response_model=schemas.EndpointList, responses=problems(403, 503))
async def list_webhook_endpoints(principal: Privileged, api: ApiState) -> Response:
    """Your endpoints, or as an admin all, the newest first."""
    async with api.runtime.database.read() as connection:
        found = await endpoints_of(connection, created_by=_owner(principal))
    return document({"webhook_endpoints": [endpoint.document() for endpoint in found]})


@router.get("/{endpoint_id}", response_model=schemas.Endpoint, responses=problems(403, 404, 503))
async def get_webhook_endpoint(endpoint_id: str, principal: Privileged, api: ApiState) -> Response:
    """One endpoint, without its secret."""
    async with api.runtime.database.read() as connection:
        endpoint = await _existing(connection, existing_id(endpoint_id), principal)
    return document(endpoint.document())


@router.patch("/{endpoint_id}", response_model=schemas.Endpoint, responses=problems(400, 403, 404, 413, 415, 422, 503))
async def change_webhook_endpoint(
    endpoint_id: str, body: schemas.EndpointChange, principal: Privileged, api: ApiState
) -> Response:
    """Change an endpoint. Disabling it ends its open deliveries."""
    if body.url is not None:
        check_receiver(api, "/url", body.url)
    async with api.runtime.database.transaction() as connection:
        endpoint = await _existing(connection, existing_id(endpoint_id), principal)
        now = await api.runtime.database.clock.now(connection)
        changed = _or_404(await change_endpoint(connection, endpoint, body.model_dump(), now=now))
    return document(changed.document())


@router.delete("/{endpoint_id}", status_code=204, responses=problems(403, 404, 503))
async def delete_webhook_endpoint(endpoint_id: str, principal: Privileged, api: ApiState) -> Response:
    """Delete an endpoint and end its open deliveries."""
    async with api.runtime.database.transaction() as connection:
        endpoint = await _existing(connection, existing_id(endpoint_id), principal)
        now = await api.runtime.database.clock.now(connection)
        if not await delete_endpoint(connection, endpoint, now=now):
            raise Problem(Code.NOT_FOUND)
    return Response(status_code=204)


@router.get(
    "/{endpoint_id}/deliveries",
    response_model=schemas.EndpointDeliveries,
    responses=problems(403, 404, 422, 503),
)
async def list_endpoint_deliveries(
    endpoint_id: str,
    principal: Privileged,
    api: ApiState,
    status: DeliveryStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=2000)] = None,
) -> Response:
    """What was and will be sent to the endpoint, the newest first, with every attempt."""
    wanted: dict[str, Any] = {"status": status} if status else {}
    owner = f"{principal.actor} {existing_id(endpoint_id)}"
    before: UUID | None = None
    if cursor is not None:
        before, kept = open_cursor(api.runtime.vault, cursor, owner=owner)
        if wanted and wanted != kept:
            raise invalid("/query/cursor", "belongs to a list with other filters")
        wanted = kept
    async with api.runtime.database.read() as connection:
        endpoint = await _existing(connection, existing_id(endpoint_id), principal)
        of_status = DeliveryStatus(wanted["status"]) if wanted else None
        found = await deliveries_of_endpoint(
            connection, endpoint.id, of_status, limit=limit + 1, before_id=before, with_bodies=True
        )
    page, more = found[:limit], len(found) > limit
    return document(
        {
            "deliveries": [delivery.document(with_url=True) for delivery in page],
            "limit": limit,
            "next_cursor": seal_cursor(api.runtime.vault, page[-1].id, wanted, owner=owner) if more else None,
        }
    )


def _owner(principal: Principal) -> str | None:
    return None if principal.role == Role.ADMIN else principal.actor


async def _existing(connection: AsyncConnection, endpoint_id: UUID, principal: Principal) -> Endpoint:
    return _or_404(await find_endpoint(connection, endpoint_id, created_by=_owner(principal)))


def _or_404(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise Problem(Code.NOT_FOUND)
    return endpoint
