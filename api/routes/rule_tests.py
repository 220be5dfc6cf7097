"""The test of rules: which one would fire on a call, what would be made of it, and why the others would not fire."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth.dependencies import Administrative
from api.auth.principal import Principal
from api.fingerprints import known_scenarios
from api.openapi import simulation_examples as examples
from api.openapi.responses import BODY, NEVER_REPLAYED, problems, success
from api.problems import UNUSABLE_METHOD, Code, Problem, fault
from api.responses import json_response
from api.routes.idempotent import IdempotencyKey
from api.routes.parameters import ApiState
from api.routes.ready_made import require_simulation
from api.routes.simulation_rules import WITHOUT_RULES
from api.routes.steering import steering_of
from api.routes.strict_route import StrictRoute
from api.schemas import rule_tests as schemas
from api.state import Api
from shared.errors import CaptureMethodUnusable
from shared.gateway_calls import repeatable_key, repeatable_refund_key
from shared.ids import new_id, parse_id
from shared.lifecycle import CaptureMethod, MethodType
from shared.payment_methods import find_method
from shared.payments.usable_methods import scenario_of
from shared.simulation.calls import Call, CallOperation, CallOutcome
from shared.simulation.decisions import Decision, OutcomeSettings, decide
from shared.simulation.gateways import gateway_of
from shared.simulation.matching import Judged, fired_by, judge_all
from shared.simulation.ready_made import READY_MADE
from shared.simulation.rule_store import list_rules, live_rules
from shared.simulation.rules import LIVE_RULES_MAX, Rule

REQUEST_DECIDES = "The request's own simulation decides."

router = APIRouter(route_class=StrictRoute, prefix="/simulation/rules", tags=["simulation"])


@router.post(
    "/test",
    response_model=schemas.RuleTestResult,
    responses=problems(*BODY, Code.FORBIDDEN, Code.SIMULATION_DISABLED, Code.PAYMENT_METHOD_UNUSABLE)
    | success(200, "What would be made of the call.", example=examples.RULE_TEST, never=NEVER_REPLAYED),
)
async def try_simulation_rules(
    body: schemas.RuleTestRequest, principal: Administrative, api: ApiState, _key: IdempotencyKey = None
) -> Response:
    """Say which rule would fire on a call, what the call would do, and why no other rule fires. Nothing is done.

    The answer comes from the same functions as the gateway's. It knows what is stored, and not what an order service
    would say. A repeat with the same idempotency key is answered anew.
    """
    require_simulation(api, WITHOUT_RULES)
    call = await _call(body, principal, api)
    now, rules = await _rules(api)
    settings = _outcome_settings(api)
    judged = judge_all(rules, call, seed=settings.seed, now=now)
    if call.steering.outcomes:
        judged = [replace(each, reasons=each.reasons or (REQUEST_DECIDES,)) for each in judged]
    firing = next((each.rule for each in judged if not each.reasons), None)
    decision = decide(call, settings, fired_by(firing, call, seed=settings.seed) if firing else None)
    return json_response(
        {
            "operation": call.operation.value,
            "call_number": call.number,
            "decided_by": str(decision.rule),
            "outcome": _outcome(decision),
            "requires_action": decision.requires_action,
            "delay_ms": decision.delay_ms,
            "pace": decision.pace.value,
            "rule": {"id": str(firing.id), "name": firing.name} if firing else None,
            "other_rules": [_silent(each, now) for each in judged if each.reasons],
            "is_repeatable": api.runtime.settings.simulator_seed is not None,
        }
    )


async def _call(body: schemas.RuleTestRequest, principal: Principal, api: Api) -> Call:
    """Return the call that is meant.

    Raises Problem if its payment method does not exist, and CaptureMethodUnusable if that cannot be captured later.
    """
    user_id, call_id, operation = body.user_id or principal.user_id, new_id(), body.asked_operation
    seed_key = str(call_id)
    if api.runtime.settings.simulator_seed is not None:
        seed_key = repeatable_key(user_id, body.order_id, body.idempotency_key)
        if operation is CallOperation.REFUND:
            seed_key = repeatable_refund_key(seed_key, 0)
    method = await _method(body, api)
    if body.capture_method is CaptureMethod.MANUAL and method["method_type"] is MethodType.DEBIT_CARD:
        raise CaptureMethodUnusable
    call = Call(
        payment_id=call_id,
        seed_key=seed_key,
        amount=body.amount,
        currency=body.currency,
        operation=operation,
        number=body.call_number,
        gateway_try=body.call_number - 1,
        can_redirect=body.return_url is not None,
        steering=steering_of(body.simulation, api),
        user_id=user_id,
        order_id=body.order_id,
        metadata=body.metadata,
        **method,
    )
    return replace(call, gateway=gateway_of(call, _outcome_settings(api).seed))


async def _method(body: schemas.RuleTestRequest, api: Api) -> dict[str, Any]:
    """Return the members of a call that its payment method decides. Raises Problem if that does not exist."""
    facts, name = body.payment_method, body.payment_method_id or ""
    if facts is not None:
        return {"method_type": facts.type, "scenario": None, "brand": facts.brand, "last4": facts.last4}
    if (ready_made := READY_MADE.get(name)) is not None:
        return _facts(ready_made.type, ready_made.details) | {"scenario": ready_made.scenario}
    method_id = parse_id(name)
    async with api.runtime.database.read() as connection:
        method = await find_method(connection, method_id, user_id=body.user_id) if method_id else None
    if method is None:
        raise Problem(
            Code.PAYMENT_METHOD_UNUSABLE,
            "There is no such payment method. GET /test-methods has all ready-made ones.",
            errors=[fault("/payment_method_id", UNUSABLE_METHOD)],
        )
    scenario = scenario_of(method.fingerprint, method.scenario, known_scenarios(api.runtime.keyring))
    return _facts(method.type, method.details) | {"scenario": scenario}


def _facts(method_type: MethodType, details: dict[str, Any]) -> dict[str, Any]:
    return {"method_type": method_type, "brand": details.get("brand"), "last4": details.get("last4")}


async def _rules(api: Api) -> tuple[datetime, list[Rule]]:
    """Return the time, and the rules, the newest first: all that can fire, and the newest of those that cannot."""
    async with api.runtime.database.read() as connection:
        now = await api.runtime.database.clock.now(connection)
        found = await list_rules(connection, limit=LIVE_RULES_MAX) + await live_rules(connection, now)
    by_id: dict[UUID, Rule] = {rule.id: rule for rule in found}
    return now, [by_id[rule_id] for rule_id in sorted(by_id, reverse=True)]


def _outcome_settings(api: Api) -> OutcomeSettings:
    settings = api.runtime.settings
    return OutcomeSettings(
        settings.simulator_seed or "",
        success_rate=settings.payment_success_rate,
        uses_test_amounts=settings.payment_failure_scenarios,
    )


def _outcome(decision: Decision) -> str:
    """Return what the call does: the outcome that was chosen for it, or else how it ends."""
    chosen = decision.remark["outcome"] if decision.remark else None
    unsteered = CallOutcome.PENDING if decision.settles_late else CallOutcome.APPROVE
    return str(chosen or decision.failure or unsteered)


def _silent(judged: Judged, now: datetime) -> dict[str, Any]:
    rule = judged.rule
    return {
        "id": str(rule.id),
        "name": rule.name,
        "state": rule.state(now).value,
        "reasons": list(judged.reasons),
    }
