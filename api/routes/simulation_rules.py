"""Rules, with which admins steer the simulation: they are created, listed and deleted here, and workers apply them."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BeforeValidator
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.dependencies import Administrative
from api.openapi import simulation_examples as examples
from api.openapi.responses import BODY, KEYED, problems, success
from api.problems import Code, found_or_404
from api.responses import json_response
from api.routes.cursors import Cursor, Limit, open_page
from api.routes.idempotent import REPLAYED_HEADER, IdempotencyKey, key_request_of, run_idempotent
from api.routes.parameters import ApiState, parse_path_id
from api.routes.ready_made import require_simulation
from api.routes.strict_route import StrictRoute
from api.schemas import simulation_rules as schemas
from shared.errors import OlderWorkers
from shared.ids import new_id
from shared.simulation.rule_store import add_rule, delete_rule, delete_rules, find_rule, list_rules
from shared.simulation.rules import Rule

WITHOUT_RULES = "Rules need SIMULATION=on. Where it is off, no rule fires."

log = structlog.get_logger(__name__)
router = APIRouter(route_class=StrictRoute, prefix="/simulation/rules", tags=["simulation"])


# The path takes ids only, so that that of the test is no rule; what the router has read is taken as a text again.
type RuleId = Annotated[str, BeforeValidator(str)]


@router.post(
    "",
    status_code=201,
    response_model=schemas.Rule,
    responses=problems(
        *BODY, *KEYED, Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.NOT_FOUND, Code.SIMULATION_RULE_LIMIT
    )
    | success(201, "The rule is created.", example=examples.RULE),
)
async def create_simulation_rule(
    body: schemas.RuleRequest, principal: Administrative, api: ApiState, key: IdempotencyKey = None
) -> Response:
    """Create a rule. Within a second every worker applies it to the calls that it makes of the gateway.

    Of several rules that match a call, the newest that can fire does, alone. What a request asks for in `simulation`
    wins over rules, and a rule wins over test cards, test amounts and the success rate.
    """
    require_simulation(api, WITHOUT_RULES)
    rule_id = new_id()

    async def add(connection: AsyncConnection, now: datetime, repeated: UUID | None) -> tuple[Rule, datetime]:
        if repeated is not None:
            return found_or_404(await find_rule(connection, repeated)), now
        if api.worker_versions.has_0_1():
            raise OlderWorkers("rules")
        created = Rule(
            id=rule_id,
            name=body.name,
            match=body.match.value(),
            effect=body.effect.value(),
            times=body.times,
            used=0,
            expires_at=now + timedelta(seconds=body.expires_in_s) if body.expires_in_s is not None else None,
            created_by=principal.actor,
            created_at=now,
        )
        await add_rule(connection, created)
        return created, now

    key_request = key_request_of(
        api.runtime.keyring,
        principal,
        key,
        operation="POST /simulation/rules",
        content=body.model_dump() if key else None,
        object_id=rule_id,
    )
    (rule, now), is_repeat = await run_idempotent(api, key_request, add)
    shown = rule.to_json(now)
    if not is_repeat:
        _log("simulation_rule.created", rule, by=principal.actor)
    return json_response(shown, status=201, headers=REPLAYED_HEADER if is_repeat else {})


@router.get(
    "",
    response_model=schemas.RuleList,
    responses=problems(Code.FORBIDDEN, Code.SIMULATION_DISABLED)
    | success(200, "A page of rules.", example=examples.RULES),
)
async def list_simulation_rules(
    principal: Administrative, api: ApiState, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """List the rules, the newest first. Those that cannot fire any more are among them for a day, and say why."""
    require_simulation(api, WITHOUT_RULES)
    page = open_page(api.runtime.keyring, cursor, {}, limit=limit, owner=f"{principal.actor} simulation-rules")
    async with api.runtime.database.read() as connection:
        now = await api.runtime.database.clock.now(connection)
        found = await list_rules(connection, limit=page.fetch_limit, before=page.last)
    return json_response(page.to_json("rules", found, lambda rule: rule.to_json(now)))


@router.get(
    "/{rule_id:uuid}",
    response_model=schemas.Rule,
    responses=problems(Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.NOT_FOUND)
    | success(200, "The rule.", example=examples.RULE),
)
async def get_simulation_rule(rule_id: RuleId, _principal: Administrative, api: ApiState) -> Response:
    """Return a rule: what it matches, what it does, how often it has fired, and whether it still can."""
    require_simulation(api, WITHOUT_RULES)
    wanted = parse_path_id(rule_id)
    async with api.runtime.database.read() as connection:
        now = await api.runtime.database.clock.now(connection)
        rule = found_or_404(await find_rule(connection, wanted))
    return json_response(rule.to_json(now))


@router.delete(
    "/{rule_id:uuid}",
    status_code=204,
    responses=problems(Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.NOT_FOUND, Code.OUTCOME_UNKNOWN, Code.OVERLOADED)
    | success(204, "The rule is deleted."),
)
async def delete_simulation_rule(rule_id: RuleId, principal: Administrative, api: ApiState) -> Response:
    """Delete a rule. Within a second no worker applies it any more; what it has done stays."""
    require_simulation(api, WITHOUT_RULES)
    wanted = parse_path_id(rule_id)

    async def delete(connection: AsyncConnection, now: datetime) -> Rule | None:
        return await delete_rule(connection, wanted, now=now)

    _log("simulation_rule.deleted", found_or_404(await api.in_transaction(delete)), by=principal.actor)
    return Response(status_code=204)


@router.delete(
    "",
    status_code=204,
    responses=problems(Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.OUTCOME_UNKNOWN, Code.OVERLOADED)
    | success(204, "There are no rules any more."),
)
async def delete_simulation_rules(principal: Administrative, api: ApiState) -> Response:
    """Delete all rules, whoever created them."""
    require_simulation(api, WITHOUT_RULES)

    async def delete(connection: AsyncConnection, now: datetime) -> int:
        return await delete_rules(connection, now=now)

    log.info("simulation_rules.deleted", rules=await api.in_transaction(delete), by=principal.actor)
    return Response(status_code=204)


def _log(event: str, rule: Rule, *, by: str) -> None:
    log.info(
        event,
        rule_id=str(rule.id),
        name=rule.name,
        match=rule.match.to_json(),
        effect=rule.effect.to_json(),
        times=rule.times,
        used=rule.used,
        by=by,
    )
