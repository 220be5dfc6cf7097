"""Payments at the addresses where the platform's gateway looks for them."""

import httpx
import pytest

from tests.support.api_client import RunningApi, card, problem
from tests.support.money import authorized, charged

pytest_plugins = ["tests.support.api_fixtures"]

HERE = ("/api/v1", "/payment-methods", "/payments")
THERE = ("/api", "/payments/methods", "/payments")


async def test_payments_are_at_both_addresses_and_each_answers_with_its_own(running_api: RunningApi) -> None:
    bearer = dict(running_api.user().headers)
    made: dict[str, list[str]] = {"methods": [], "payments": []}
    for base, methods, payments in (HERE, THERE):
        client = running_api.client(base=base, headers={"Authorization": bearer["authorization"]})
        answer = await client.post(methods, json=card(), headers={"Idempotency-Key": "card"})
        method_id = answer.json()["id"]
        assert answer.headers["location"] == f"{base}{methods}/{method_id}"
        assert (await client.get(f"{methods}/{method_id}")).status_code == 200
        assert (await client.patch(f"{methods}/{method_id}", json={"display_name": "Mine"})).status_code == 200
        assert [each["id"] for each in (await client.get(methods)).json()["payment_methods"]] == [method_id]
        body = {"order_id": "77", "payment_method_id": method_id, "amount": 1585}
        answer = await client.post(payments, json=body, headers={"Idempotency-Key": "pay"})
        payment_id = answer.json()["id"]
        assert answer.status_code == 202
        assert answer.headers["location"] == f"{base}{payments}/{payment_id}"
        for part in ("", "/status", "/history", "/deliveries"):
            assert (await client.get(f"{payments}/{payment_id}{part}")).status_code == 200
        listed = (await client.get(payments, params={"order_id": "77"})).json()["payments"]
        assert [each["id"] for each in listed] == [payment_id]
        made["methods"].append(method_id)
        made["payments"].append(payment_id)
    # The same key is the same request, wherever it comes in.
    for ids in made.values():
        assert len(set(ids)) == 1


async def test_the_platforms_addresses_do_the_rest_as_well(running_api: RunningApi) -> None:
    client = running_api.client(base="/api", headers={"Authorization": running_api.user().headers["authorization"]})
    method_id = (await client.post("/payments/methods", json=card())).json()["id"]
    body = {"order_id": "78", "payment_method_id": method_id, "amount": 1585}
    payment_id = (await client.post("/payments", json=body)).json()["id"]
    assert (await client.post(f"/payments/{payment_id}/cancel")).json()["status"] == "CANCELLED"
    assert (await client.delete(f"/payments/methods/{method_id}")).status_code == 204
    missing = await client.get("/payments/nothing")
    assert problem(missing, 404, "not_found")["instance"] == "/api/payments/nothing"
    problem(await running_api.client(base="/api").get("/payments"), 401, "invalid_token")
    for elsewhere in ("/webhook-endpoints", "/callback-secret", "/payment-methods", "/v1/payments/methods"):
        problem(await client.get(elsewhere), 404, "not_found")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_on_the_platforms_paths_a_location_keeps_its_prefix(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    service = running_api.service()
    service.base_url = httpx.URL(running_api.url)
    made = await service.post(f"/api/payments/{payment['id']}/refunds", json={"amount": 1})
    path = f"/api/payments/refunds/{made.json()['id']}"
    assert made.headers["location"] == path
    assert (await service.get(path)).json() == made.json()
    assert (await service.get(f"{path}/history")).json()["refund_id"] == made.json()["id"]
    assert (await service.get("/api/payments/refunds")).json()["refunds"] == [made.json()]
    assert (await service.get(f"/api/payments/{payment['id']}/refunds")).json()["refunds"] == [made.json()]
    assert (await service.post(f"{path}/cancel")).json()["status"] == "CANCELLED"


async def test_the_platforms_paths_lead_to_the_same_operations(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    held, done = await authorized(user, running_api.database), await charged(user, running_api.database)
    service = running_api.service()
    service.base_url = httpx.URL(f"{running_api.url}/api")
    assert (await service.post(f"/payments/{held['id']}/capture")).status_code == 202
    refund = await service.post(f"/payments/{done['id']}/refunds")
    assert refund.headers["location"] == f"/api/payments/refunds/{refund.json()['id']}"
    assert (
        await running_api.client(base="", headers=dict(service.headers)).get(refund.headers["location"])
    ).json() == refund.json()
