"""The clock on the page of the simulator: admins advance it, so that what is due later happens now."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import whole_number
from api.dashboard.json_api import Refused
from api.dashboard.simulator_page import simulator_page
from api.dashboard.visitors import PageRoute, SignedIn
from api.paths import DASHBOARD

router = APIRouter(prefix=f"{DASHBOARD}/simulator/clock", route_class=PageRoute, include_in_schema=False)

UNITS = {"minutes": 60, "hours": 3600, "days": 86_400}


@router.post("")
async def advance_clock(visitor: SignedIn) -> Response:
    """Advance service time, and lead to the simulator when what was due is done, or after 25 seconds."""
    form = await visitor.form()
    seconds = (whole_number(form, "count") or 0) * UNITS.get(form.get("unit", ""), 1)
    try:
        answer: dict[str, Any] = await visitor.json.post(
            "/simulation/clock/advance", {"seconds": seconds}, key=form.get("key")
        )
    except Refused as refused:
        return await simulator_page(visitor, fault=refused.sentence, status=refused.answer.status)
    return visitor.lead_to(f"/simulator?done={'advanced' if answer['is_idle'] else 'advancing'}#clock")
