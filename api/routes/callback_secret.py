"""The secret that signs the webhooks to a `callback_url`."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Authenticated
from api.openapi import examples
from api.openapi.responses import problems, success
from api.responses import json_response
from api.routes.parameters import ApiState
from api.routes.strict_route import StrictRoute
from api.schemas import webhooks as schemas

router = APIRouter(route_class=StrictRoute, prefix="/callback-secret", tags=["webhooks"])


@router.get(
    "",
    response_model=schemas.CallbackSecret,
    responses=problems() | success(200, "The secret.", example=examples.CALLBACK_SECRET, headers=("Cache-Control",)),
)
async def get_callback_secret(principal: Authenticated, api: ApiState) -> Response:
    """Return the secret that signs the webhooks to your `callback_url`s.

    Each principal has its own secret. A webhook is signed with the secret of the principal that created the payment.
    """
    secret = api.runtime.keyring.callback_secret(principal.actor)
    return json_response({"secret": secret}, headers={"Cache-Control": "no-store"})
