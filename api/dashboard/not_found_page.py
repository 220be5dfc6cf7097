"""The page of an address in the dashboard that leads nowhere."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.visitors import PageRoute, SignedIn
from api.paths import DASHBOARD
from api.problems import Code, Problem

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)


@router.get("/{name}")
async def get_nothing(_visitor: SignedIn) -> Response:
    """Say that there is nothing."""
    raise Problem(Code.NOT_FOUND)
