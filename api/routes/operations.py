"""What operators read and ask for: live figures, and verifications with their report. All of it is for admins only."""

import structlog
from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Administrative
from api.openapi import examples
from api.openapi.responses import NEVER_REPLAYED, problems, success
from api.problems import Code, found_or_404
from api.responses import json_response
from api.routes.idempotent import IdempotencyKey
from api.routes.parameters import ApiState
from api.routes.strict_route import StrictRoute
from api.schemas import operations as schemas
from shared.broker.verify_runs import VerifyRun, ask_for_verify, find_verify
from shared.ids import new_id
from shared.verify.reports import last_report

log = structlog.get_logger(__name__)

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
    """Return the report of the last verification: what was checked, what is wrong, where, and what to do."""
    async with api.runtime.database.read() as connection:
        report = await last_report(connection)
    found = found_or_404(
        report, "Nobody has verified yet. Ask a worker with POST /api/v1/verify/run, or run `payments verify`."
    )
    return json_response(found)


@router.post(
    "/verify/run",
    status_code=202,
    response_model=schemas.VerifyRun,
    responses=problems(Code.FORBIDDEN)
    | success(202, "The run.", example=schemas.VERIFY_RUN_EXAMPLE, never=NEVER_REPLAYED),
)
async def ask_for_verification(principal: Administrative, api: ApiState, _key: IdempotencyKey = None) -> Response:
    """Ask a worker to verify, as `payments verify` does. While one is under way, no other begins: it is returned.

    `GET /verify/run` says how far it is, and `GET /verify/last` what it found. Payments go on meanwhile. A verification
    changes nothing, so an idempotency key makes no difference.
    """
    async with api.runtime.database.read() as connection:
        now = await api.runtime.database.clock.now(connection)
    asked = VerifyRun(id=new_id(), asked_at=now)
    run = await ask_for_verify(api.runtime.broker, asked)
    if run is asked:
        log.info("verify.asked", run_id=str(run.id), by=principal.actor)
    return json_response(run.to_json(), status=202)


@router.get(
    "/verify/run",
    response_model=schemas.VerifyRun,
    responses=problems(Code.FORBIDDEN, Code.NOT_FOUND)
    | success(200, "The run.", example=schemas.VERIFY_RUN_EXAMPLE | {"status": "done", "checked": 2_000_000}),
)
async def get_verification(_principal: Administrative, api: ApiState) -> Response:
    """Return how far the verification is that was asked of the workers last; it is kept for two hours."""
    run = found_or_404(
        await find_verify(api.runtime.broker), "Nobody has asked for a verification in the last two hours."
    )
    return json_response(run.to_json())
