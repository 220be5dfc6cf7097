"""What operators read: live figures, and the last report of `payments verify`. Both are for admins only."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Administrative
from api.openapi import examples
from api.openapi.responses import problems, success
from api.problems import Code, found_or_404
from api.responses import json_response
from api.routes.parameters import ApiState
from api.routes.strict_route import StrictRoute
from api.schemas import operations as schemas
from shared.verify_reports import last_report

router = APIRouter(route_class=StrictRoute, tags=["operation"])


@router.get(
    "/stats",
    response_model=schemas.Figures,
    responses=problems(Code.FORBIDDEN) | success(200, "The figures.", example=examples.FIGURES),
)
async def get_stats(_principal: Administrative, api: ApiState) -> Response:
    """Return live figures of the whole installation, counted at most once a second.

    They are the payments that wait or are in progress, the open webhook deliveries, the rates and the workers.
    """
    return json_response(await api.stats.current())


@router.get(
    "/verify/last",
    response_model=schemas.VerifyReport,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND)
    | success(200, "The report.", example=schemas.VERIFY_REPORT_EXAMPLE),
)
async def get_last_report(_principal: Administrative, api: ApiState) -> Response:
    """Return the last report of `payments verify`: what was checked, what is wrong, where, and what to do."""
    async with api.runtime.database.read() as connection:
        report = await last_report(connection)
    found = found_or_404(report, "`payments verify` has not run yet. Run it to get a report.")
    return json_response(found)
