"""The live figures, for those who watch."""

from fastapi import APIRouter
from fastapi.responses import Response

from api import schemas
from api.auth import Administrative
from api.openapi import problems
from api.requests import ApiState
from api.responses import document

router = APIRouter(prefix="/stats", tags=["operation"])


@router.get("", response_model=schemas.Figures, responses=problems(403, 503))
async def get_stats(_principal: Administrative, api: ApiState) -> Response:
    """What waits, what is in the gateway, who works, and how fast: counted at most once a second."""
    return document(await api.stats.current())
