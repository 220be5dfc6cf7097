"""The notifications of gateways that have settled late. One is a hint: the worker asks the gateway.

What is signed rightly is answered with 204, whatever is known of its payment: a gateway learns nothing by it.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from api.edge.signed_notifications import signer_of
from api.hints import Hint
from api.openapi.responses import BODY, problems_of_signed, success
from api.paths import NOTIFICATIONS
from api.problems import Code, Problem, invalid
from api.routes.parameters import ApiState
from api.routes.strict_route import StrictRoute
from api.schemas.notifications import GatewayNotification
from api.state import Api
from shared import metrics
from shared.webhooks.signatures import WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP

SIGNATURE_HEADERS: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": description}
        for name, description in (
            (WEBHOOK_ID, "The id of the notification."),
            (WEBHOOK_TIMESTAMP, "The moment of signing in Unix seconds: at most 5 minutes from now."),
            (WEBHOOK_SIGNATURE, "The signature of Standard Webhooks, with the secret of the gateway."),
        )
    ]
}


class SignedRoute(StrictRoute):
    """A strict route for requests that a gateway has signed."""

    async def admit(self, request: Request) -> bool:
        """Return that the client is no user. Raises Problem (401) for what no gateway has signed."""
        if signer_of(request.scope) is None:
            raise _refused()
        return False


router = APIRouter(route_class=SignedRoute, prefix=NOTIFICATIONS, tags=["gateway notifications"])
_DESCRIBED: dict[str, Any] = {
    "status_code": 204,
    "response_class": Response,
    "responses": problems_of_signed(*BODY, Code.OVERLOADED, Code.OUTCOME_UNKNOWN)
    | success(204, "The notification is signed rightly."),
    "openapi_extra": SIGNATURE_HEADERS,
}


@router.post("/{gateway}", **_DESCRIBED)
async def notify_as_gateway(
    gateway: Annotated[str, Path(description="The gateway that signed the notification.")],
    notification: GatewayNotification,
    api: ApiState,
) -> Response:
    """Report that this gateway has settled a payment or a refund late.

    Signed as Standard Webhooks asks, with the secret of the gateway; no token is needed. Nothing in it is believed: if
    the payment waits for this gateway, a worker asks the gateway now instead of later.
    """
    return await _receive(api, gateway, notification)


@router.post("", **_DESCRIBED)
async def notify_by_body(request: Request, notification: GatewayNotification, api: ApiState) -> Response:
    """Report that the gateway named in the body has settled a payment or a refund late.

    As with the name in the path; the signature must be that of the named gateway.
    """
    signer = signer_of(request.scope)
    if signer is None or signer != notification.data.gateway:
        raise _refused()
    return await _receive(api, signer, notification)


async def _receive(api: Api, signer: str, notification: GatewayNotification) -> Response:
    data = notification.data
    is_of_refund = notification.type == "refund.settled"
    if is_of_refund and data.refund_id is None:
        raise invalid("/data/refund_id", "must be the refund that is settled")
    if not is_of_refund and data.refund_id is not None:
        raise invalid("/data/refund_id", "must be left out where a payment is settled")
    is_hastened = data.gateway == signer and await api.hints.submit(Hint(signer, data.payment_id, data.refund_id))
    metrics.notifications_received.labels("hastened" if is_hastened else "ignored").inc()
    return Response(status_code=204)


def _refused() -> Problem:
    metrics.notifications_received.labels("refused").inc()
    return Problem(
        Code.INVALID_SIGNATURE,
        "Sign the notification as Standard Webhooks asks, with the secret of its gateway and the time of now.",
    )
