"""Examples of the objects that steer the simulation."""

from typing import Any

RULE: dict[str, Any] = {
    "id": "01a21e57-0c1e-7a52-b1f4-6d0c5e9a7b21",
    "name": "Visa cards are declined twice",
    "match": {"brand": "visa", "amount": {"min": 1000}},
    "effect": {"outcomes": ["insufficient_funds"]},
    "times": 2,
    "used": 1,
    "state": "active",
    "state_reason": None,
    "expires_at": None,
    "created_by": "admin:root",
    "created_at": "2026-11-28T09:30:00.000Z",
}
OUTAGE: dict[str, Any] = RULE | {
    "id": "01a21e56-f3b0-7c11-9d84-0b7a52c6e4f3",
    "name": "The gateway is away",
    "match": {},
    "effect": {"outage": "unavailable"},
    "times": None,
    "used": None,
    "state": "expired",
    "state_reason": "It expired at 2026-11-28T09:25:00.000Z.",
    "expires_at": "2026-11-28T09:25:00.000Z",
    "created_at": "2026-11-28T09:20:00.000Z",
}
RULES = {"rules": [RULE, OUTAGE], "limit": 20, "next_cursor": None}
RULE_TEST: dict[str, Any] = {
    "operation": "charge",
    "call_number": 1,
    "decided_by": f"rule:{RULE['id']}",
    "outcome": "insufficient_funds",
    "requires_action": False,
    "delay_ms": None,
    "pace": "drawn",
    "rule": {"id": RULE["id"], "name": RULE["name"]},
    "other_rules": [
        {"id": OUTAGE["id"], "name": OUTAGE["name"], "state": "expired", "reasons": [OUTAGE["state_reason"]]}
    ],
    "is_repeatable": True,
}
