"""Ready-made payment methods: their list. Nothing adds, changes or deletes one."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Authenticated
from api.openapi import examples
from api.openapi.responses import problems, success
from api.problems import Code, Problem
from api.responses import json_response
from api.routes.parameters import ApiState
from api.routes.strict_route import StrictRoute
from api.schemas import payment_methods as schemas
from api.state import Api
from shared.simulation.ready_made import READY_MADE

WITHOUT_READY_MADE = "Ready-made payment methods need SIMULATION=on. Pay with a payment method of the user."
# Without a prefix of its own, because it is mounted at two different paths.
router = APIRouter(route_class=StrictRoute, tags=["payment methods"])


@router.get(
    "/test-methods",
    response_model=schemas.ReadyMadeMethodList,
    responses=problems(Code.SIMULATION_DISABLED)
    | success(200, "All ready-made payment methods.", example=examples.TEST_METHODS),
)
async def list_test_methods(_principal: Authenticated, api: ApiState) -> Response:
    """List the ready-made payment methods, with which every user may pay.

    A payment takes the `id` of one of them as its `payment_method_id`. They count against no limit, and nobody can
    change or delete them. Where `SIMULATION` is off, the answer is 403 `simulation_disabled`.
    """
    require_simulation(api)
    return json_response({"test_methods": [method.to_json() for method in READY_MADE.values()]})


def require_simulation(api: Api, detail: str = WITHOUT_READY_MADE) -> None:
    """Raise Problem (simulation_disabled) where SIMULATION is off. `detail` says what needs it, and what to do."""
    if not api.runtime.settings.is_simulation_on:
        raise Problem(Code.SIMULATION_DISABLED, detail)
