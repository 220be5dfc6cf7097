"""The explanation of a payment: what decided its outcome, and where its time went."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Authenticated
from api.auth.principal import Role
from api.openapi.explain_example import EXPLANATION
from api.openapi.responses import problems, success
from api.paths import PAYMENTS
from api.problems import Code, found_or_404
from api.responses import json_response
from api.routes.parameters import ApiState, parse_path_id
from api.routes.strict_route import StrictRoute
from api.schemas import explain as schemas
from shared.explain.facts import Reader
from shared.explain.of_payment import explain

router = APIRouter(route_class=StrictRoute, prefix=PAYMENTS, tags=["payments"])


@router.get(
    "/{payment_id}/explain",
    response_model=schemas.Explanation,
    responses=problems(Code.NOT_FOUND) | success(200, "The explanation.", example=EXPLANATION),
)
async def explain_payment(payment_id: str, principal: Authenticated, api: ApiState) -> Response:
    """Explain a payment: what decided its outcome, where its time went, and how to get the same outcome again.

    `words` is the whole of it for people. The other members are for programs. Only admins see the addresses of
    receivers, the keys of the gateway's ledger, and the key for which the random numbers are drawn.
    """
    runtime = api.runtime
    reader = Reader(principal.user_id, is_admin=principal.role == Role.ADMIN)
    explanation = found_or_404(
        await explain(
            runtime.database,
            runtime.settings,
            parse_path_id(payment_id),
            api.permissions.visible(principal),
            reader,
        )
    )
    return json_response(explanation.to_json())
