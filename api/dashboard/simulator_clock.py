"""The clock on the page of the simulator: admins advance it, so that what is due later happens now."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import administrative
from api.dashboard.forms import whole_number, wrong
from api.dashboard.json_api import Refused
from api.dashboard.simulator_page import simulator_page
from api.dashboard.visitors import PageRoute, SignedIn
from api.paths import DASHBOARD
from api.schemas.simulation_clock import ADVANCE_S_MAX

router = APIRouter(prefix=f"{DASHBOARD}/simulator/clock", route_class=PageRoute, include_in_schema=False)

UNITS = {"minutes": 60, "hours": 3600, "days": 86_400}


@router.post("")
async def advance_clock(visitor: SignedIn) -> Response:
    """Advance service time, and lead to the simulator when what was due is done, or after 25 seconds."""
    form = await visitor.form()
    # Whoever may not advance it is told nothing about the fields.
    await administrative(visitor.principal)
    try:
        await visitor.json.get("/simulation/clock")
        seconds = _seconds(form)
        answer: dict[str, Any] = await visitor.json.post(
            "/simulation/clock/advance", {"seconds": seconds}, key=form.get("key")
        )
    except Refused as refused:
        return await simulator_page(visitor, refused=refused, sent_key=form.get("key", ""))
    return visitor.lead_to("/simulator", done="advanced" if answer["is_idle"] else "advancing", part="clock")


def _seconds(form: Mapping[str, str]) -> int:
    """Return how far the form advances the clock. Raises Refused (422), which names the wrong field."""
    unit_s = UNITS.get(form.get("unit", ""))
    if unit_s is None:
        raise wrong(f'"unit" must be one of {", ".join(UNITS)}.')
    count = whole_number(form, "count", between=(1, ADVANCE_S_MAX // unit_s))
    if count is None:
        raise wrong('"count" is required.')
    return count * unit_s
