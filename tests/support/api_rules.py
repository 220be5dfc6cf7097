"""Rules that are created over HTTP, and a payment to test them with."""

from typing import Any

import httpx

from api.schemas.simulation_rules import Rule
from tests.support.models import strict

RULES = "/simulation/rules"
DECLINES: dict[str, Any] = {"name": "declines", "effect": {"outcomes": ["card_declined"]}}
INTENT: dict[str, Any] = {"order_id": "shop-7", "payment_method_id": "pm_test_visa", "amount": 1585}


async def created(admin: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await admin.post(RULES, json={**DECLINES, **body})
    assert answer.status_code == 201, answer.text
    rule: dict[str, Any] = answer.json()
    strict(Rule).model_validate(rule)
    return rule
