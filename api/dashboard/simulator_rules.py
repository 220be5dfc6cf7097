"""Rules of the simulation on the page of the simulator: admins create them, by hand or by a preset, and delete them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import decimal_number, whole_number, wrong
from api.dashboard.json_api import Refused
from api.dashboard.simulator_page import simulator_page
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from shared.simulation.presets import PRESETS, Preset
from shared.simulation.rule_store import live_rules
from shared.simulation.rules import EXPIRES_IN_S_MAX, LIVE_RULES_MAX

router = APIRouter(prefix=f"{DASHBOARD}/simulator/rules", route_class=PageRoute, include_in_schema=False)

RULES = "/simulation/rules"
# Members of `match` that the form has as texts.
MATCHED = ("user_id", "order_id", "method_type", "operation")
MINUTE_S = 60
MINUTES = (1, EXPIRES_IN_S_MAX // MINUTE_S)


@router.post("")
async def create_rule(visitor: SignedIn) -> Response:
    """Create a rule."""
    form = await visitor.form()
    try:
        await _require_rules(visitor)
        await visitor.json.post(RULES, _body(form), key=form.get("key"))
    except Refused as refused:
        return await simulator_page(visitor, fault=refused.sentence, status=refused.answer.status)
    return _done(visitor, "created")


@router.post("/preset")
async def create_preset(visitor: SignedIn) -> Response:
    """Create the rules of a preset: all of them or none."""
    form = await visitor.form()
    try:
        await _require_rules(visitor)
        bodies = _preset(form)
        await _require_room(visitor, len(bodies))
        await _create_all(visitor, bodies, form.get("key"))
    except Refused as refused:
        return await simulator_page(visitor, fault=refused.sentence, status=refused.answer.status)
    return _done(visitor, "created")


@router.post("/delete")
async def delete_rules(visitor: SignedIn) -> Response:
    """Delete one rule, or all of them."""
    form = await visitor.form()
    rule_id = form.get("rule_id", "")
    answer = await visitor.json.ask("DELETE", f"{RULES}/{rule_id}" if rule_id else RULES)
    if not answer.is_done:
        return await simulator_page(visitor, fault=Refused(answer).sentence, status=answer.status)
    return _done(visitor, "deleted")


def _done(visitor: Visitor, word: str) -> Response:
    return visitor.lead_to(f"/simulator?done={word}#rules")


async def _require_rules(visitor: Visitor) -> None:
    """Raise Refused (403) for who may have no rules: whoever may not is told nothing about the fields of a form."""
    await visitor.json.get(RULES, {"limit": 1})


async def _require_room(visitor: Visitor, wanted: int) -> None:
    """Raise Refused (422) unless so many rules can be created."""
    database = visitor.api.runtime.database
    async with database.read() as connection:
        room = LIVE_RULES_MAX - len(await live_rules(connection, await database.clock.now(connection)))
    if wanted > room:
        raise wrong(f"The preset has {wanted} rules, and there is room for {room}. None of them was created.")


async def _create_all(visitor: Visitor, bodies: Sequence[Mapping[str, Any]], key: str | None) -> None:
    """Create the rules. Raises Refused if one is refused, after those that were created before it are deleted."""
    created: list[str] = []
    for number, body in enumerate(bodies):
        try:
            rule = await visitor.json.post(RULES, body, key=f"{key}-{number}" if key else None)
        except Refused as refused:
            # Others have taken the room since it was looked for.
            undone = [(await visitor.json.ask("DELETE", f"{RULES}/{one}")).is_done for one in created]
            rest = "None of the preset's rules is left." if all(undone) else "Some of its rules are left: delete them."
            raise wrong(f"{refused.sentence} {rest}") from refused
        created.append(rule["id"])


def _preset(form: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rules of the preset that a form names. Raises Refused (422) for an unknown one and a wrong time."""
    name = form.get("preset", "")
    if name not in set(Preset):
        raise wrong(f'"preset" must be one of {", ".join(Preset)}.')
    minutes = whole_number(form, "minutes", between=MINUTES)
    if minutes is None:
        raise wrong('"minutes" is required.')
    return [rule.body(expires_in_s=minutes * MINUTE_S) for rule in PRESETS[Preset(name)]]


def _body(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the rule that a form describes. Raises Refused (422) for what should be a number and is none.

    An empty field asks for nothing. A zero is passed on, and the JSON API refuses it: without it the rule is wider.
    """
    match: dict[str, Any] = {name: form[name].strip() for name in MATCHED if form.get(name, "").strip()}
    if (percent := decimal_number(form, "percent")) is not None:
        match["percent"] = percent
    effect: dict[str, Any] = {}
    if outcome := form.get("outcome"):
        effect["outcomes"] = [outcome]
    if (delay_ms := whole_number(form, "delay_ms")) is not None:
        effect["delay_ms"] = delay_ms
    body: dict[str, Any] = {"name": form.get("name", "").strip(), "match": match, "effect": effect}
    if (times := whole_number(form, "times")) is not None:
        body["times"] = times
    if (minutes := whole_number(form, "minutes", between=MINUTES)) is not None:
        body["expires_in_s"] = minutes * MINUTE_S
    return body
