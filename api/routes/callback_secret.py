"""The secret that signs what goes to a `callback_url`."""

from fastapi import APIRouter
from fastapi.responses import Response

from api import schemas
from api.auth import Authenticated
from api.openapi import problems
from api.requests import ApiState
from api.responses import document

router = APIRouter(prefix="/callback-secret", tags=["webhooks"])


@router.get("", response_model=schemas.CallbackSecret, responses=problems(503))
async def get_callback_secret(principal: Authenticated, api: ApiState) -> Response:
    """Verify deliveries to your `callback_url`s with this secret; it belongs to whoever created the payment."""
    secret = api.runtime.vault.callback_secret(principal.actor)
    return document({"secret": secret}, headers={"Cache-Control": "no-store"})
