"""What is no rule is 422, and every member that is wrong is named."""

from typing import Any

import httpx
import pytest

from tests.support.api_client import pointers
from tests.support.api_rules import DECLINES, RULES
from tests.support.sentences import check_sentences

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"name": ""}, ["/name"]),
        ({"name": "x" * 101}, ["/name"]),
        ({"name": "a\nb"}, ["/name"]),
        ({"times": 0}, ["/times"]),
        ({"times": 1_000_001}, ["/times"]),
        ({"times": 1.5}, ["/times"]),
        ({"expires_in_s": 0}, ["/expires_in_s"]),
        ({"expires_in_s": 86_401}, ["/expires_in_s"]),
        ({"match": {"user_id": ""}}, ["/match/user_id"]),
        ({"match": {"order_id": "*a"}}, ["/match/order_id"]),
        ({"match": {"order_id": "*"}}, ["/match/order_id"]),
        ({"match": {"method_type": "CASH"}}, ["/match/method_type"]),
        ({"match": {"brand": "maestro"}}, ["/match/brand"]),
        ({"match": {"last4": "12345"}}, ["/match/last4"]),
        ({"match": {"currency": "usd"}}, ["/match/currency"]),
        ({"match": {"amount": 0}}, ["/match/amount"]),
        ({"match": {"amount": "5"}}, ["/match/amount"]),
        ({"match": {"amount": True}}, ["/match/amount"]),
        ({"match": {"amount": {}}}, ["/match/amount"]),
        ({"match": {"amount": {"min": 2, "max": 1}}}, ["/match/amount"]),
        ({"match": {"amount": {"min": 0, "most": 1}}}, ["/match/amount/min", "/match/amount/most"]),
        ({"match": {"metadata.": "x"}}, ["/match/metadata."]),
        ({"match": {"metadata.a": 1}}, ["/match/metadata.a"]),
        ({"match": {"metadata.a/b": "x" * 501, "metadata": {"c": 1}}}, ["/match/metadata/c", "/match/metadata.a~1b"]),
        ({"match": {"metadata." + "k" * 41: "x", "brand": "none"}}, ["/match/brand", "/match/metadata." + "k" * 41]),
        ({"match": {"metadata": "x", "metadata.a": "1"}}, ["/match/metadata", "/match/metadata.a"]),
        ({"match": {"metadata": {"a": "1", "b": "1"}, "metadata.a": "2", "metadata.b": "1"}}, ["/match/metadata.a"]),
        ({"match": {"gateway": "stripe"}}, ["/match/gateway"]),
        ({"match": {"operation": "void"}}, ["/match/operation"]),
        ({"match": {"percent": 0}}, ["/match/percent"]),
        ({"match": {"percent": 100.5}}, ["/match/percent"]),
        ({"match": {"percent": "5"}}, ["/match/percent"]),
        ({"match": {"colour": "red"}}, ["/match/colour"]),
        ({"match": {"method_type": "PAYPAL", "brand": "visa"}}, ["/match"]),
        ({"match": "all"}, ["/match"]),
        ({"effect": {}}, ["/effect"]),
        ({"effect": {"outage": "slow", "delay_ms": 5}, "expires_in_s": 9}, ["/effect"]),
        ({"effect": {"outage": "fire"}}, ["/effect/outage"]),
        ({"effect": {"outage": "slow"}}, ["/expires_in_s"]),
        ({"effect": {"outcomes": []}}, ["/effect/outcomes"]),
        ({"effect": {"outcomes": ["approve"] * 21}}, ["/effect/outcomes"]),
        ({"effect": {"outcomes": ["approve", "order_not_found"]}}, ["/effect/outcomes/1"]),
        ({"effect": {"outcomes": ["lost_card", "refund_declined"]}}, ["/effect/outcomes"]),
        (
            {"match": {"operation": "refund"}, "effect": {"outcomes": ["approve", "lost_card"]}},
            ["/effect/outcomes/1"],
        ),
        ({"effect": {"delay_ms": -1}}, ["/effect/delay_ms"]),
        # 10 s less than LEASE_S.
        ({"effect": {"delay_ms": 20_001}}, ["/effect/delay_ms"]),
        ({"effect": {"delay_ms": {"min": 1}}}, ["/effect/delay_ms/max"]),
        ({"effect": {"delay_ms": {"min": 2, "max": 1}}}, ["/effect/delay_ms"]),
        ({"effect": {"delay_ms": {"min": 0, "max": 20_001}}}, ["/effect/delay_ms/max"]),
        (
            {"name": 1, "match": {"brand": 1}, "effect": {"outage": "slow"}, "times": 0, "x": 1},
            ["/name", "/match/brand", "/times", "/expires_in_s", "/x"],
        ),
    ],
)
async def test_what_is_no_rule_is_422_and_every_wrong_member_is_named(
    admin: httpx.AsyncClient, change: dict[str, Any], places: list[str]
) -> None:
    answer = await admin.post(RULES, json={**DECLINES, **change})
    assert pointers(answer) == places
    for error in answer.json()["errors"]:
        check_sentences(error["detail"])
    assert (await admin.get(RULES)).json()["rules"] == []
