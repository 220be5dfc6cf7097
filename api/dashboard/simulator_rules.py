"""Rules of the simulation on the page of the simulator: admins create them, by hand or by a preset, and delete them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from api.dashboard.forms import decimal_number, whole_number, wrong
from api.dashboard.json_api import Answer, Refused
from api.dashboard.simulator_page import simulator_page
from api.dashboard.visitors import PageRoute, SignedIn, Visitor
from api.paths import DASHBOARD
from api.problems import Code
from shared.simulation.presets import PRESETS, Preset
from shared.simulation.rules import EXPIRES_IN_S_MAX

router = APIRouter(prefix=f"{DASHBOARD}/simulator/rules", route_class=PageRoute, include_in_schema=False)

RULES = "/simulation/rules"
# Members of `match` that the form has as texts.
MATCHED = ("user_id", "order_id", "method_type", "operation")
MINUTE_S = 60
MINUTES = (1, EXPIRES_IN_S_MAX // MINUTE_S)
DELETED_SINCE = "This form was sent before, and a rule that it created then was deleted since."
SENT_OTHERWISE = "This form was sent before, with other fields. Load the page again to create something else."
# What an earlier request with the same key has to do with a refusal, and how the page says it.
SENT_BEFORE = {Code.NOT_FOUND: DELETED_SINCE, Code.IDEMPOTENCY_KEY_REUSED: SENT_OTHERWISE}


@router.post("")
async def create_rule(visitor: SignedIn) -> Response:
    """Create a rule."""
    form = await visitor.form()
    try:
        await _require_rules(visitor)
        answer = await _create(visitor, _body(form), form.get("key"))
    except Refused as refused:
        return await simulator_page(visitor, refused=refused, sent_key=form.get("key", ""))
    return _done(visitor, "again" if answer.is_replayed else "created")


@router.post("/preset")
async def create_preset(visitor: SignedIn) -> Response:
    """Create the rules of a preset: all of them or none."""
    form = await visitor.form()
    try:
        await _require_rules(visitor)
        is_new = await _create_all(visitor, _preset(form), form.get("key"))
    except Refused as refused:
        return await simulator_page(visitor, refused=refused, sent_key=form.get("key", ""))
    return _done(visitor, "preset" if is_new else "again")


@router.post("/delete")
async def delete_rules(visitor: SignedIn) -> Response:
    """Delete one rule, or all of them if that is asked for."""
    form = await visitor.form()
    try:
        await _require_rules(visitor)
        rule_id = _unwanted(form)
        await visitor.json.delete(RULES if rule_id is None else f"{RULES}/{rule_id}")
    except Refused as refused:
        return await simulator_page(visitor, refused=refused)
    return _done(visitor, "all-deleted" if rule_id is None else "deleted")


def _done(visitor: Visitor, word: str) -> Response:
    return visitor.lead_to("/simulator", done=word, part="rules")


async def _require_rules(visitor: Visitor) -> None:
    """Raise Refused (403) for who may have no rules: whoever may not is told nothing about the fields of a form."""
    await visitor.json.get(RULES, {"limit": 1})


async def _create(visitor: Visitor, body: Mapping[str, Any], key: str | None) -> Answer:
    """Create a rule, once for each key. Raises Refused, also for a repeat whose rule was deleted since."""
    answer = await visitor.json.ask("POST", RULES, body=body, key=key)
    if answer.is_done:
        return answer
    refused = Refused(answer)
    raise refused.saying(SENT_BEFORE[Code(refused.code)]) if refused.code in SENT_BEFORE else refused


async def _create_all(visitor: Visitor, bodies: Iterable[Mapping[str, Any]], key: str | None) -> bool:
    """Create the rules, and return whether any is new.

    Raises Refused if one is refused, after those that were created just now are deleted.
    Rules of an earlier request with the same key are not touched: they are what that one was to do.
    """
    created: list[str] = []
    is_replayed = False
    for number, body in enumerate(bodies):
        try:
            answer = await _create(visitor, body, f"{key}-{number}" if key else None)
        except Refused as refused:
            is_undone = await _undo(visitor, created)
            if refused.code == Code.OUTCOME_UNKNOWN or not is_undone:
                rest = "Some of the preset's rules may exist: the list below has them, when it is loaded again."
            elif is_replayed or refused.code in SENT_BEFORE:
                rest = "Rules that were created when the form was sent before are left as they are."
            else:
                rest = "None of the preset's rules is left."
            raise refused.saying(f"{refused.sentence} {rest}") from refused
        is_replayed |= answer.is_replayed
        if not answer.is_replayed:
            created.append(answer.content["id"])
    return bool(created)


async def _undo(visitor: Visitor, created: Iterable[str]) -> bool:
    """Delete rules, and return whether all of them are gone for sure."""
    answers = [await visitor.json.ask("DELETE", f"{RULES}/{one}") for one in created]
    # Somebody else may have deleted one already.
    return all(answer.is_done or answer.status == HTTPStatus.NOT_FOUND for answer in answers)


def _unwanted(form: Mapping[str, str]) -> str | None:
    """Return the id of the rule that a form deletes; None for all rules. Raises Refused (422) unless it says which."""
    rule_id = form.get("rule_id", "").strip()
    match form.get("all"), rule_id:
        case None, str() if rule_id:
            return rule_id
        case "1", "":
            return None
        case _:
            raise wrong('Either "rule_id" is required, or "all", which must be 1. No rule was deleted.')


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
