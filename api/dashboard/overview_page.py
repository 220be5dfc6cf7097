"""The overview, which is live, and its stream."""

from functools import partial

from fastapi import APIRouter
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse

from api.dashboard.overview import OUTCOMES_OVER_S, TIMES_OVER_S
from api.dashboard.pages import HEADERS
from api.dashboard.visitors import COOKIE, PageRoute, SignedIn, dashboard_of
from api.edge.access_log import ASKED
from api.paths import DASHBOARD

# A proxy must not collect the events before it passes them on.
STREAM_HEADERS = {**HEADERS, "X-Accel-Buffering": "no"}

router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)


@router.get("")
@router.get("/")
async def get_overview(visitor: SignedIn) -> Response:
    """Show the live figures of the installation to admins; lead all others to their payments."""
    if not visitor.is_admin:
        return visitor.lead_to("/payments")
    shown = {"outcomes_over_s": round(OUTCOMES_OVER_S), "times_over_s": round(TIMES_OVER_S)}
    return visitor.page("overview.html", shown)


@router.get("/stream")
async def get_stream(visitor: SignedIn) -> Response:
    """Send the live figures as server-sent events, until the page is closed or hidden."""
    visitor.require_admin()
    overview, sessions = dashboard_of(visitor.request).overview, dashboard_of(visitor.request).sessions
    if visitor.request.scope.get(ASKED) == "HEAD":
        overview.require_room()
        return Response(headers=STREAM_HEADERS, media_type=EventSourceResponse.media_type)
    has_ended = partial(sessions.has_ended, visitor.request.cookies[COOKIE])
    return EventSourceResponse(overview.events(has_ended), headers=STREAM_HEADERS)
