"""Rules of the simulation on the page of the simulator: admins create them, by hand or by a preset, and delete them."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import whole_number
from api.dashboard.json_api import Refused
from api.dashboard.simulator_page import simulator_page
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.simulation.presets import PRESETS, Preset

router = APIRouter(prefix=f"{DASHBOARD}/simulator/rules", route_class=PageRoute, include_in_schema=False)

# Members of `match` that the form has as texts.
MATCHED = ("user_id", "order_id", "method_type", "operation")
MINUTE_S = 60


@router.post("")
async def create_rule(visitor: SignedIn) -> Response:
    """Create a rule."""
    form = await visitor.form()
    return await _done(visitor, "created", [("POST", "/simulation/rules", _body(form))], form.get("key"))


@router.post("/preset")
async def create_preset(visitor: SignedIn) -> Response:
    """Create the rules of a preset."""
    form = await visitor.form()
    name = form.get("preset", "")
    rules = PRESETS[Preset(name)] if name in set(Preset) else ()
    expires_in_s = (whole_number(form, "minutes") or 1) * MINUTE_S
    bodies = [rule.body(expires_in_s=expires_in_s) for rule in rules]
    return await _done(visitor, "created", [("POST", "/simulation/rules", body) for body in bodies], form.get("key"))


@router.post("/delete")
async def delete_rules(visitor: SignedIn) -> Response:
    """Delete one rule, or all of them."""
    form = await visitor.form()
    rule_id = form.get("rule_id", "")
    path = f"/simulation/rules/{rule_id}" if rule_id else "/simulation/rules"
    return await _done(visitor, "deleted", [("DELETE", path, None)], None)


async def _done(
    visitor: Visitor, word: str, requests: list[tuple[str, str, dict[str, Any] | None]], key: str | None
) -> Response:
    """Send the requests, and lead to the simulator; show it with the reason if one of them was refused."""
    for number, (method, path, body) in enumerate(requests):
        answer = await visitor.json.ask(method, path, body=body, key=f"{key}-{number}" if key else None)
        if not answer.is_done:
            return await simulator_page(visitor, fault=Refused(answer).sentence, status=answer.status)
    return visitor.lead_to(f"/simulator?done={word}#rules")


def _body(form: dict[str, str]) -> dict[str, Any]:
    """Return the rule that a form describes. Raises Refused (422) for what should be a number and is none."""
    match: dict[str, Any] = {name: form[name].strip() for name in MATCHED if form.get(name, "").strip()}
    if percent := whole_number(form, "percent"):
        match["percent"] = percent
    effect: dict[str, Any] = {}
    if outcome := form.get("outcome"):
        effect["outcomes"] = [outcome]
    if (delay_ms := whole_number(form, "delay_ms")) is not None:
        effect["delay_ms"] = delay_ms
    body: dict[str, Any] = {"name": form.get("name", "").strip(), "match": match, "effect": effect}
    if times := whole_number(form, "times"):
        body["times"] = times
    if minutes := whole_number(form, "minutes"):
        body["expires_in_s"] = minutes * MINUTE_S
    return body
