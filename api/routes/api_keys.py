"""API keys: the credentials of services and admins. Admins create, list and revoke them."""

from datetime import datetime
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Administrative
from api.openapi import examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.problems import Code, found_or_404, invalid
from api.responses import json_response
from api.routes.cursors import Cursor, Limit, open_page
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, parse_path_id
from api.routes.strict_route import StrictRoute
from api.schemas import api_keys as schemas
from shared.api_keys import ApiKey, add_key, find_unrevoked, new_api_key, revoke_key, unrevoked_keys
from shared.ids import new_id

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix="/api-keys", tags=["api keys"])


@router.post(
    "",
    status_code=201,
    response_model=schemas.ApiKeyWithSecret,
    responses=problems(*BODY, *KEYED, Code.FORBIDDEN, Code.NOT_FOUND)
    | success(201, "The key is created.", example=examples.NEW_API_KEY, headers=("Cache-Control",)),
)
async def create_api_key(
    body: schemas.ApiKeyRequest, principal: Administrative, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Create an API key for a service or an admin. The answer has the key; it is shown only this once.

    The key is the same principal as a token with this user and this role. To replace a key, create another one with
    the same name and role, and revoke the old one when it is no longer used.
    """
    key_id, new_key = new_id(), new_api_key()

    async def add(connection: AsyncConnection, _now: datetime, repeated: UUID | None) -> ApiKey:
        if repeated is not None:
            return found_or_404(await find_unrevoked(connection, repeated))
        # Keys live in real time, whatever service time is.
        now = api.runtime.database.clock.real_now()
        if body.expires_at is not None and body.expires_at <= now:
            raise invalid("/expires_at", schemas.IN_FUTURE)
        return await add_key(
            connection,
            api.runtime.keyring,
            new_key,
            key_id=key_id,
            name=body.name,
            role=body.role,
            created_by=principal.actor,
            expires_at=body.expires_at,
            now=now,
        )

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation="POST /api-keys",
        content=body.model_dump() if key else None,
        object_id=key_id,
    )
    created, is_repeat = await run_idempotent(api, key_request, add)
    if not is_repeat:
        _log("api_key.created", created, by=principal.actor)
    shown = created.to_json() if is_repeat else {**created.to_json(), "key": new_key}
    # The key must not stay in a cache.
    headers = {"Cache-Control": "no-store"} | (REPLAYED_HEADER if is_repeat else {})
    return json_response(shown, status=201, headers=headers)


@router.get(
    "",
    response_model=schemas.ApiKeyList,
    responses=problems(Code.FORBIDDEN) | success(200, "A page of keys.", example=examples.API_KEYS),
)
async def list_api_keys(principal: Administrative, api: ApiState, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """List the API keys that were not revoked, the newest first. Keys that have expired are among them."""
    page = open_page(api.runtime.keyring, cursor, {}, limit=limit, owner=f"{principal.actor} api-keys")
    async with api.runtime.database.read() as connection:
        found = await unrevoked_keys(connection, limit=page.fetch_limit, before=page.last)
    return json_response(page.to_json("api_keys", found, ApiKey.to_json))


@router.delete(
    "/{key_id}",
    status_code=204,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND, Code.OUTCOME_UNKNOWN) | success(204, "The key is revoked."),
)
async def revoke_api_key(key_id: str, principal: Administrative, api: ApiState) -> Response:
    """Revoke an API key for good. Within 10 seconds no process accepts it any more."""
    wanted = parse_path_id(key_id)
    async with api.runtime.database.transaction() as connection:
        await api.runtime.database.clock.now(connection)
        now = api.runtime.database.clock.real_now()
        revoked = found_or_404(await revoke_key(connection, wanted, by=principal.actor, now=now))
    api.api_keys.forget(wanted)
    _log("api_key.revoked", revoked, by=principal.actor)
    return Response(status_code=204)


def _log(event: str, key: ApiKey, *, by: str) -> None:
    log.info(event, api_key_id=str(key.id), principal=key.principal, by=by)
