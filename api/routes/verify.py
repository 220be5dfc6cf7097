"""What the last `payments verify` found, whoever ran it and wherever."""

from fastapi import APIRouter
from fastapi.responses import Response

from api import schemas
from api.auth import Administrative
from api.errors import Code, Problem
from api.openapi import problems
from api.requests import ApiState
from api.responses import document
from shared.verification import last_report

router = APIRouter(prefix="/verify", tags=["operation"])


@router.get("/last", response_model=schemas.VerifyReport, responses=problems(403, 404, 503))
async def get_last_report(_principal: Administrative, api: ApiState) -> Response:
    """The last report of `payments verify`: what was checked, what is broken, where, and what to do."""
    async with api.runtime.database.read() as connection:
        report = await last_report(connection)
    if report is None:
        raise Problem(Code.NOT_FOUND, "`payments verify` has not run yet.")
    return document(report)
